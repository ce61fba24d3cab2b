"""MMLU: four-choice questions by subject, few-shot, answered by the likeliest of the four letters.

Prompt and scoring are those of the benchmark (Hendrycks et al. 2021): a headline, the subject's dev questions with
their answers, the question, and `Answer:`.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.likelihood import next_token_logprobs
from evals.metrics import Score
from evals.task import SampleResult
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import Row, read_rows

LETTERS = "ABCD"


def question_text(row: Row) -> str:
    """One question with its choices, up to and with `Answer:`."""
    choices = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, row["choices"], strict=True))
    return f"{row['question'].strip()}\n{choices}\nAnswer:"


def prompt_text(row: Row, shots: list[Row]) -> str:
    """The whole few-shot prompt for one question."""
    subject = row["subject"].replace("_", " ")
    headline = f"The following are multiple choice questions (with answers) about {subject}.\n\n"
    examples = "".join(f"{question_text(shot)} {LETTERS[shot['answer']]}\n\n" for shot in shots)
    return headline + examples + question_text(row)


def balanced(rows: list[Row], count: int) -> list[Row]:
    """`count` rows, taken in turn from every subject."""
    by_subject: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_subject[row["subject"]].append(row)
    taken: list[Row] = []
    for turn in range(max((len(group) for group in by_subject.values()), default=0)):
        taken += [group[turn] for _, group in sorted(by_subject.items()) if turn < len(group)]
    return taken[:count]


def letter_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """What the four answers " A" … " D" share at their beginning, and the token in which each differs.

    A small vocabulary may have " A" as one token and " B" as two; then a space and the bare letters serve for all.

    Raises:
        BadInput: the tokenizer has no token for a letter.
    """

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    whole = [encode(f" {letter}") for letter in LETTERS]
    apart = [encode(" ") + encode(letter) for letter in LETTERS]
    for found in (whole, apart):
        shared, last = found[0][:-1], [ids[-1] for ids in found]
        if all(ids[:-1] == shared for ids in found) and len(set(last)) == len(LETTERS):
            return shared, last
    raise BadInput(f"the tokenizer encodes the answers A, B, C, D as {apart}: it needs a token for each letter")


@dataclass(frozen=True, slots=True)
class Mmlu:
    """`questions` test questions of `data` with `shots` examples of the same subject."""

    data: Path
    questions: int
    shots: int
    batch_size: int
    name: str = "mmlu"
    metrics: tuple[str, ...] = ("accuracy",)

    def run(self, engine: Any) -> list[SampleResult]:
        rows = list(read_rows(self.data))
        test = balanced([row for row in rows if row["split"] == "test"], self.questions)
        if not test:
            raise BadInput(f"{self.data} has no rows with split 'test'")
        shared, letters = letter_tokens(engine.tokenizer)
        longest = engine.model.config.max_position_embeddings
        results: dict[str, SampleResult] = {}
        for subject in sorted({row["subject"] for row in test}):
            group = [row for row in test if row["subject"] == subject]
            dev = [row for row in rows if row["split"] == "dev" and row["subject"] == subject][: self.shots]
            if len(dev) < self.shots:
                raise BadInput(f"{self.data}: {subject} has {len(dev)} dev questions, mmlu_shots asks for {self.shots}")
            prompts = [engine.tokenizer(prompt_text(row, dev))["input_ids"] + shared for row in group]
            prompts = [prompt[-longest:] for prompt in prompts]
            logprobs = next_token_logprobs(engine.model, prompts, letters, self.batch_size)
            for row, found in zip(group, logprobs, strict=True):
                answer = int(found.argmax())
                detail = {"target": LETTERS[row["answer"]], "subject": subject, "logprobs": found.round(4).tolist()}
                score = Score(float(answer == row["answer"]))
                results[row["id"]] = SampleResult(
                    row["id"], question_text(row), LETTERS[answer], {"accuracy": score}, detail=detail
                )
        return [results[row["id"]] for row in test]

"""MMLU: four-choice questions by subject, few-shot, answered by the likeliest of the four letters.

Prompt, scoring and the four categories of subjects are those of the benchmark (Hendrycks et al. 2021): a headline, the
subject's dev questions with their answers, the question, and `Answer:`. What the questions of a subject have in common
goes through the model once.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.likelihood import next_token_logprobs
from evals.metrics import Score
from evals.task import SampleResult
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import Row
from pipelines.data.evaluation_sets import LETTERS, evaluation_rows

CATEGORIES = {
    "stem": """abstract_algebra anatomy astronomy college_biology college_chemistry college_computer_science
        college_mathematics college_physics computer_security conceptual_physics electrical_engineering
        elementary_mathematics high_school_biology high_school_chemistry high_school_computer_science
        high_school_mathematics high_school_physics high_school_statistics machine_learning
        biology chemistry computer_science mathematics physics""",
    "humanities": """formal_logic high_school_european_history high_school_us_history high_school_world_history
        international_law jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy prehistory
        professional_law world_religions history language""",
    "social sciences": """econometrics high_school_geography high_school_government_and_politics
        high_school_macroeconomics high_school_microeconomics high_school_psychology human_sexuality
        professional_psychology public_relations security_studies sociology us_foreign_policy economics geography""",
}
CATEGORY_OF = {subject: category for category, subjects in CATEGORIES.items() for subject in subjects.split()}


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
    """`questions` test questions of `data`, a file or folder, with `shots` examples of the same subject."""

    data: Path
    questions: int
    shots: int
    batch_size: int
    name: str = "mmlu"
    metrics: tuple[str, ...] = ("accuracy",)
    groups: tuple[str, ...] = ("category", "subject")

    def run(self, engine: Any) -> list[SampleResult]:
        rows = list(evaluation_rows(self.data))
        test = balanced([row for row in rows if row["split"] == "test"], self.questions)
        if not test:
            raise BadInput(f"{self.data} has no questions of the split 'test'")
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
                detail = {
                    "target": LETTERS[row["answer"]],
                    "subject": subject,
                    "category": CATEGORY_OF.get(subject, "other"),
                    "logprobs": found.round(4).tolist(),
                }
                score = Score(float(answer == row["answer"]))
                results[row["id"]] = SampleResult(
                    row["id"], question_text(row), LETTERS[answer], {"accuracy": score}, detail=detail
                )
        return [results[row["id"]] for row in test]

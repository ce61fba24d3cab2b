"""Chat questions in the form of MT-bench and Vicuna-80: a category and one turn or two, the second after the answer.

As in chat_quality the form is checked here, and the judge says what the answers are worth; it reads all turns as one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.metrics import Score
from evals.task import SampleResult, evenly
from evals.tasks.chat_quality import Voice, answer, form_scores
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import Row
from pipelines.data.evaluation_sets import evaluation_rows
from pipelines.model.engine import Generation


def _result(row: Row, generations: Sequence[Generation], special_ids: frozenset[int]) -> SampleResult:
    forms = [form_scores(generation, special_ids) for generation in generations]
    scores = {name: Score(min(form[name].value for form in forms)) for name in ("stopped", "not_empty", "clean")}
    scores["tokens"] = Score(sum(form["tokens"].value for form in forms))
    stopped = all(generation.finish_reason == "stop" for generation in generations)
    answers = [generation.text for generation in generations]
    detail = {
        "category": row["category"],
        "finish_reason": "stop" if stopped else "length",
        "turns": row["turns"],
        "answers": answers,
    }
    return SampleResult(
        f"question/{row['question_id']}", "\n\n".join(row["turns"]), "\n\n".join(answers), scores, detail=detail
    )


@dataclass(frozen=True, slots=True)
class ChatQuestions:
    """Up to `questions` questions of `data`, over all categories."""

    data: Path
    questions: int
    max_new_tokens: int
    voice: Voice
    name: str = "chat_questions"
    metrics: tuple[str, ...] = ("stopped", "not_empty", "clean", "tokens")
    groups: tuple[str, ...] = ("category",)

    def samples(self) -> list[Row]:
        """The questions.

        Raises:
            BadInput: a row is no question, or has other than one or two turns.
        """
        rows = list(evaluation_rows(self.data))
        for row in rows:
            if missing := [field for field in ("question_id", "category", "turns") if not row.get(field)]:
                raise BadInput(f"{self.data}: row {row['id']} has no {missing}; a question has id, category and turns")
            if len(row["turns"]) > 2:
                raise BadInput(f"{self.data}: question {row['question_id']} has {len(row['turns'])} turns, at most 2")
        return evenly(rows, self.questions)

    def run(self, engine: Any) -> list[SampleResult]:
        rows = self.samples()
        chats = [[{"role": "user", "content": row["turns"][0]}] for row in rows]
        given = [[first] for first in answer(engine, chats, self.max_new_tokens, self.voice)]
        going = [number for number, row in enumerate(rows) if len(row["turns"]) == 2]
        followed = [
            [
                *chats[number],
                {"role": "assistant", "content": given[number][0].text},
                {"role": "user", "content": rows[number]["turns"][1]},
            ]
            for number in going
        ]
        for number, second in zip(going, answer(engine, followed, self.max_new_tokens, self.voice), strict=True):
            given[number].append(second)
        special_ids = frozenset(engine.tokenizer.all_special_ids)
        return [_result(row, generations, special_ids) for row, generations in zip(rows, given, strict=True)]

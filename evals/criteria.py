"""Grades of single answers by the four criteria of Vicuna's evaluation (Chiang et al. 2023), from 1 to 10."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from evals.judge import Pair
from evals.metrics import Score, estimate
from pipelines.core.jsonl import Row

CRITERIA = {
    "helpfulness": "whether it does what was asked",
    "relevance": "whether it keeps to the request",
    "accuracy": "whether what it says is true",
    "detail": "whether it is as detailed as the request asks for",
}
LOWEST, HIGHEST = 1, 10


class Graded(NamedTuple):
    """One answer and the criterion that it is graded by."""

    prompt: str
    answer: str
    criterion: str


@dataclass(frozen=True, slots=True)
class Grade:
    """A grade, or why there is none."""

    value: float | None
    reason: str = ""


class Grader(Protocol):
    """Anything that can grade an answer."""

    def grade(self, asked: Sequence[Graded]) -> list[Grade]: ...


def parse_grade(reply: str) -> Grade:
    """The grade in a judge's reply: a lone whole number from 1 to 10, perhaps "out of 10" or in brackets."""
    found = re.fullmatch(r"\W*(\d{1,2})(?:\s*(?:/|out of)\s*10)?\W*", reply.strip(), re.IGNORECASE)
    if not found or not LOWEST <= int(found[1]) <= HIGHEST:
        return Grade(None, f"the grade {reply.strip()[:80]!r} is no whole number from {LOWEST} to {HIGHEST}")
    return Grade(float(found[1]))


def grade_answers(
    grader: Grader, pairs: Sequence[Pair], alpha: float, seed: int
) -> tuple[dict[str, dict[str, Any]], list[Row]]:
    """Grade both answers of `pairs`: side -> criterion -> mean with interval and reasons, and a row for each grade."""
    asked = [
        (pair.id, side, Graded(pair.prompt, answer.text, criterion))
        for pair in pairs
        for side, answer in (("candidate", pair.candidate), ("baseline", pair.baseline))
        for criterion in CRITERIA
    ]
    grades = grader.grade([graded for *_, graded in asked])
    rows: list[Row] = [
        {
            "id": name,
            "side": side,
            "criterion": graded.criterion,
            "grade": grade.value,
            "unscored": grade.reason,
        }
        for (name, side, graded), grade in zip(asked, grades, strict=True)
    ]
    summary: dict[str, dict[str, Any]] = {"candidate": {}, "baseline": {}}
    for side, by_criterion in summary.items():
        for criterion in CRITERIA:
            mine = [row for row in rows if (row["side"], row["criterion"]) == (side, criterion)]
            scores = [Score(row["grade"]) for row in mine if row["grade"] is not None]
            reason = "; ".join(sorted({row["unscored"] for row in mine if row["unscored"]})) or None
            found = estimate(scores, alpha, np.random.default_rng(seed)).to_row()
            by_criterion[criterion] = found | {"unscored": len(mine) - len(scores), "reason": reason}
    return summary, rows

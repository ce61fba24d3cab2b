"""Pairwise judging: which of two answers is better, asked in both orders; inconsistent verdicts are ties.

A verdict that can't be read is unscored, never a loss. `evals/judges.py` has the judges, `evals/criteria.py` the
grades of single answers.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pvariance
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from evals.metrics import Score, estimate
from pipelines.core.jsonl import Row

Choice = Literal["first", "second", "tie"]
Outcome = Literal["win", "tie", "loss"]
POINTS: dict[Outcome, float] = {"win": 1.0, "tie": 0.5, "loss": 0.0}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said, and whether it ended by itself."""

    text: str
    stopped: bool = True


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one request; a win is the candidate's."""

    id: str
    prompt: str
    candidate: Answer
    baseline: Answer
    category: str


class Question(NamedTuple):
    """A pair in one of its orders, as a judge sees it."""

    prompt: str
    first: Answer
    second: Answer


@dataclass(frozen=True, slots=True)
class Vote:
    """A judge's answer to one question; without a choice, the reason."""

    choice: Choice | None
    reason: str = ""


class Judge(Protocol):
    """Anything that can say which of two answers is better."""

    @property
    def name(self) -> str: ...

    @property
    def facts(self) -> dict[str, float]:
        """Figures about the judging itself: tokens used and their price, bias taken out."""
        ...

    @property
    def repeats(self) -> int:
        """How often each question is asked; 1 for a judge whose verdict is a function of the question."""
        ...

    def vote(self, questions: Sequence[Question], repeat: int = 0) -> list[Vote]: ...


def outcome_of(forward: Vote, backward: Vote) -> Outcome | None:
    """Win or loss when both orders agree on it, tie when they do not, None when a vote is missing.

    `forward` saw the candidate first, `backward` the baseline.
    """
    if forward.choice is None or backward.choice is None:
        return None
    if (forward.choice, backward.choice) == ("first", "second"):
        return "win"
    if (forward.choice, backward.choice) == ("second", "first"):
        return "loss"
    return "tie"


@dataclass(frozen=True, slots=True)
class Judgement:
    """One pair with the votes of both orders, one of each for every repeat."""

    pair: Pair
    forward: tuple[Vote, ...]
    backward: tuple[Vote, ...]

    @property
    def outcomes(self) -> list[Outcome]:
        """The outcome of each repeat in which both orders were read."""
        found = [outcome_of(*votes) for votes in zip(self.forward, self.backward, strict=True)]
        return [outcome for outcome in found if outcome]

    @property
    def outcome(self) -> Outcome | None:
        """What more than half of the repeats say, else a tie; None when none was read."""
        counts = Counter(self.outcomes)
        if not counts:
            return None
        most, times = counts.most_common(1)[0]
        return most if 2 * times > counts.total() else "tie"

    @property
    def points(self) -> float | None:
        """The mean over repeats, a tie counting half."""
        return fmean(POINTS[outcome] for outcome in self.outcomes) if self.outcomes else None

    @property
    def by_position(self) -> bool:
        """Both orders of a repeat named the same place: the judge looked at the order, not at the answers."""
        votes = zip(self.forward, self.backward, strict=True)
        return any(one.choice == other.choice and one.choice in ("first", "second") for one, other in votes)

    @property
    def unscored(self) -> str | None:
        """Why a vote is missing."""
        return next((vote.reason for vote in (*self.forward, *self.backward) if vote.choice is None), None)

    def to_row(self) -> Row:
        return {
            "id": self.pair.id,
            "prompt": self.pair.prompt,
            "candidate": self.pair.candidate.text,
            "baseline": self.pair.baseline.text,
            "category": self.pair.category,
            "votes": [[vote.choice for vote in order] for order in (self.forward, self.backward)],
            "outcome": self.outcome,
            "points": self.points,
            "unscored": self.unscored,
        }


def compare(judge: Judge, pairs: Sequence[Pair]) -> list[Judgement]:
    """Ask `judge` about every pair in both orders, as often as it repeats; equal answers are a tie without asking."""
    asked = [pair for pair in pairs if pair.candidate.text != pair.baseline.text]
    questions = [Question(pair.prompt, pair.candidate, pair.baseline) for pair in asked]
    questions += [Question(pair.prompt, pair.baseline, pair.candidate) for pair in asked]
    repeats = [judge.vote(questions, repeat) for repeat in range(judge.repeats)]
    votes = list(zip(*repeats, strict=True))  # of each question
    given = dict(
        zip((pair.id for pair in asked), zip(votes[: len(asked)], votes[len(asked) :], strict=True), strict=True)
    )
    same = (Vote("tie"),) * judge.repeats
    return [Judgement(pair, *given.get(pair.id, (same, same))) for pair in pairs]


def _interval(values: Sequence[float], alpha: float, seed: int) -> dict[str, Any]:
    return estimate([Score(value) for value in values], alpha, np.random.default_rng(seed)).to_row()


def repeat_spread(judgements: Sequence[Judgement]) -> dict[str, float | int | None]:
    """How far repeated verdicts on the same pair differ; points run from 0 to 1."""
    repeated = [[POINTS[outcome] for outcome in j.outcomes] for j in judgements if len(j.outcomes) > 1]
    if not repeated:
        return {"pairs": 0, "variance": None, "changed": None}
    return {
        "pairs": len(repeated),
        "variance": fmean(pvariance(points) for points in repeated),
        "changed": sum(len(set(points)) > 1 for points in repeated),
    }


def report(judge: Judge, judgements: Sequence[Judgement], alpha: float, seed: int) -> dict[str, Any]:
    """Wins with their interval, and the judge's known weaknesses: a taste for a place, for length, and its moods.

    `first_share` is the share of votes for the answer shown first (0.5 without bias), `longer_share` that of wins
    and losses in which the longer answer won, `repeats` how verdicts on the same pair vary.
    """
    counts = Counter(judgement.outcome or "unscored" for judgement in judgements)
    votes = [vote.choice for judgement in judgements for vote in (*judgement.forward, *judgement.backward)]
    categories: dict[str, Counter[str]] = defaultdict(Counter)
    for judgement in judgements:
        categories[judgement.pair.category][judgement.outcome or "unscored"] += 1
    longer = [
        float((len(j.pair.candidate.text) > len(j.pair.baseline.text)) == (j.outcome == "win"))
        for j in judgements
        if j.outcome in ("win", "loss") and len(j.pair.candidate.text) != len(j.pair.baseline.text)
    ]
    return {
        "judge": judge.name,
        "win_rate": _interval([j.points for j in judgements if j.points is not None], alpha, seed),
        "wins": counts["win"],
        "ties": counts["tie"],
        "losses": counts["loss"],
        "unscored": counts["unscored"],
        "reasons": sorted({j.unscored for j in judgements if j.unscored}),
        "equal_answers": sum(j.pair.candidate.text == j.pair.baseline.text for j in judgements),
        "inconsistent": sum(j.by_position for j in judgements),
        "first_share": _interval([float(c == "first") for c in votes if c in ("first", "second")], alpha, seed),
        "longer_share": _interval(longer, alpha, seed),
        "repeats": {"asked": judge.repeats} | repeat_spread(judgements),
        "by_category": {name: dict(sorted(found.items())) for name, found in sorted(categories.items())},
        "facts": dict(judge.facts),
    }


def agreement_with_labels(judgements: Sequence[Judgement], simulated: int, alpha: float, seed: int) -> dict[str, Any]:
    """How often the judge prefers what labelers preferred; the pairs' candidate is the chosen answer, a tie is half.

    `simulated` of the pairs were ranked by simulated labelers: agreement with a rule, not with people.
    """
    points = [judgement.points for judgement in judgements if judgement.points is not None]
    return _interval(points, alpha, seed) | {"simulated": simulated}

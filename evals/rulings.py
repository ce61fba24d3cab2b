"""What a rule of the gate says, and the evidence that it says it about."""

from dataclasses import dataclass
from typing import Any, Literal

from evals.metrics import Score
from evals.task import SampleResult, scores_of

Verdict = Literal["pass", "refuse", "inconclusive", "report"]


@dataclass(frozen=True, slots=True)
class Ruling:
    """What one rule found. `difference`, `low` and `high` are of the limited quantity, on the metric's own scale."""

    name: str
    metric: str
    kind: str
    verdict: Verdict
    reason: str
    limit: float | None = None
    candidate: float | None = None
    baseline: float | None = None
    difference: float | None = None  # candidate − baseline, or candidate / baseline for a ratio
    low: float | None = None
    high: float | None = None
    n: int | None = None
    power: float | None = None  # chance that an equal candidate passes, or a better one a superiority rule, as planned
    planned_n: int | None = None  # n that the rule needs, as planned; None for a number without samples
    deciding_n: int | None = None  # n at which what was measured would decide, when it did not
    alpha: float | None = None  # one-sided level of the interval
    upward: bool = True  # whether it is good to lie above the limit
    why: str = ""  # where the limit comes from


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that the verdict is a function of."""

    results: dict[str, Any]  # results.json of evaluate
    samples: dict[str, dict[str, list[SampleResult]]]  # side -> task -> results
    alignment: dict[str, float]  # the metrics of the alignment stage
    labels: dict[str, float | None]  # the metrics of prepare_preferences
    simulated_preferences: int
    preferences: int
    reward_model: dict[str, float]
    licenses: dict[str, list[str]]  # licence -> what was trained on under it

    def scores(self, side: str, metric: str) -> tuple[dict[str, Score], str | None]:
        """Scores by sample id, and why some or all samples have none."""
        task, _, name = metric.partition(".")
        results = self.samples[side].get(task)
        if results is None:
            missing = self.results.get("baseline_missing") if side == "baseline" else None
            return {}, f"the {side} has no results of {task!r}" + (f": {missing}" if missing else "")
        scores = scores_of(results, name)
        reasons = sorted({result.unscored for result in results if result.unscored and result.id not in scores})
        if not scores and not reasons:
            return {}, f"the {side} has no {name!r} among the scores of {task!r}"
        return scores, "; ".join(reasons) or None

    def number(self, metric: str) -> float | None:
        """A number that comes without samples."""
        source, _, key = metric.partition(".")
        found: float | None = {"alignment": self.alignment, "data": self.results["data"]}[source].get(key)
        return found


def decide(low: float, high: float, limit: float, upward: bool) -> Verdict:
    """Whether [low, high] lies wholly on the good side of `limit`; `upward`: above it is good."""
    if (low >= limit) if upward else (high <= limit):
        return "pass"
    if (high < limit) if upward else (low > limit):
        return "refuse"
    return "inconclusive"

"""What an evaluation task is: samples in, one result per sample out, the metric a weighted mean over them.

A sample that could not be scored says why and is left out of the mean: unscored is not wrong.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from evals.metrics import Score, estimate_metric
from pipelines.core.jsonl import Row, read_rows, write_rows

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SampleResult:
    """What a model answered on one sample and what that was worth, by metric."""

    id: str
    prompt: str
    response: str
    scores: dict[str, Score]
    unscored: str | None = None  # why metrics are missing from `scores`
    detail: dict[str, Any] = field(default_factory=dict)  # target, category, finish reason …

    @classmethod
    def from_row(cls, row: Row) -> Self:
        scores = {metric: Score(**score) for metric, score in row["scores"].items()}
        return cls(row["id"], row["prompt"], row["response"], scores, row["unscored"], row["detail"])

    def to_row(self) -> Row:
        return {
            "id": self.id,
            "prompt": self.prompt,
            "response": self.response,
            "scores": {metric: {"value": score.value, "weight": score.weight} for metric, score in self.scores.items()},
            "unscored": self.unscored,
            "detail": self.detail,
        }


class Task(Protocol):
    """One benchmark: its dataset, its prompt, its scorer, and the names of its metrics."""

    @property
    def name(self) -> str: ...

    @property
    def metrics(self) -> tuple[str, ...]:
        """Their names; empty when only the samples say which there are (`metrics_in`)."""
        ...

    @property
    def groups(self) -> tuple[str, ...]:
        """Keys of `SampleResult.detail` by whose values the metrics are shown apart too."""
        ...

    def run(self, engine: Any) -> list[SampleResult]:
        """Answer and score every sample with the model behind `engine` (`pipelines.model.engine`)."""
        ...


def scores_of(results: Sequence[SampleResult], metric: str) -> dict[str, Score]:
    """Sample id -> score, of the samples that have one for `metric`."""
    return {result.id: result.scores[metric] for result in results if metric in result.scores}


def metrics_in(results: Sequence[SampleResult]) -> tuple[str, ...]:
    """Every metric that a sample has, or says that it could not have."""
    return tuple(sorted({name for r in results for name in (*r.scores, *r.detail.get("unscored_metrics", ()))}))


def summarize(
    results: Sequence[SampleResult], metrics: Sequence[str], alpha: float, seed: int
) -> dict[str, dict[str, Any]]:
    """metric -> {value, n, stderr, low, high, unscored, reason}; the same seed gives the same interval."""
    summary = {}
    for metric in metrics:
        scores = list(scores_of(results, metric).values())
        found: dict[str, Any] = estimate_metric(metric, scores, alpha, np.random.default_rng(seed)).to_row()
        reasons = sorted({result.unscored for result in results if result.unscored and metric not in result.scores})
        missing = sum(1 for result in results if result.unscored and metric not in result.scores)
        summary[metric] = found | {"unscored": missing, "reason": "; ".join(reasons) or None}
    return summary


def summarize_groups(
    results: Sequence[SampleResult], task: Task, alpha: float, seed: int
) -> dict[str, dict[str, dict[str, Any]]]:
    """group -> its value -> what `summarize` gives of the samples with that value."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for group in task.groups:
        members: dict[str, list[SampleResult]] = defaultdict(list)
        for result in results:
            if result.detail.get(group) is not None:
                members[str(result.detail[group])].append(result)
        found[group] = {
            value: summarize(part, task.metrics or metrics_in(part), alpha, seed)
            for value, part in sorted(members.items())
        }
    return found


def write_results(path: Path, results: Sequence[SampleResult]) -> None:
    """One JSON line per sample, in the order of the task."""
    write_rows(path, (result.to_row() for result in results))


def read_results(path: Path) -> list[SampleResult]:
    """The results that `write_results` wrote."""
    return [SampleResult.from_row(row) for row in read_rows(path)]


def evenly(rows: Sequence[T], count: int) -> list[T]:
    """`count` rows spread over the whole of `rows`, in order; all of them when there are no more."""
    if count >= len(rows):
        return list(rows)
    return [rows[position * len(rows) // count] for position in range(count)]

"""How far labelers agree, with intervals, and which of them do not label. Pure functions of annotations.

Measures: pairwise agreement as InstructGPT reports it (Ouyang et al. 2022, section 3.4: about 73 %), Kendall's tau-b
and W, Krippendorff's alpha for ordinal data (Krippendorff 2011). Each is nan where nothing can be compared.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import NamedTuple

import numpy as np

from labeling.ranking import Ranking, pairs_of, places
from pipelines.core.records import Annotation

BOOTSTRAP_SAMPLES = 1000
CONFIDENCE = 0.95
MIN_PAIRS = 20  # compared pairs below which a labeler's agreement says too little to suspect anybody
MIN_ANNOTATIONS = 5  # below which a kept order may be chance (1 in 120 each, for five responses)
KEPT_ORDER_SHARE = 0.5

TaskRankings = Mapping[str, Sequence[Ranking]]  # task id -> one ranking per labeler


class Estimate(NamedTuple):
    """A value with its 95 % bootstrap interval over tasks, and how many tasks it stands on."""

    value: float
    low: float
    high: float
    tasks: int

    def to_row(self) -> dict[str, float | int | None]:
        row = self._asdict()
        return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}


class Counts(NamedTuple):
    """Pairs of responses that two labelers both put in an order: how many alike, how many in all."""

    alike: int
    compared: int


def compare(first: Ranking, second: Ranking) -> Counts:
    """Pairs on which two rankings are alike; a pair that either of them ties does not count."""
    ours, theirs = pairs_of(first), pairs_of(second)
    alike = len(ours & theirs)
    opposite = sum((worse, better) in theirs for better, worse in ours)
    return Counts(alike, alike + opposite)


def task_counts(rankings: Sequence[Ranking]) -> Counts:
    """`compare` summed over every two labelers of one task."""
    counts = [compare(first, second) for first, second in combinations(rankings, 2)]
    return Counts(sum(count.alike for count in counts), sum(count.compared for count in counts))


def kendall_tau(first: Ranking, second: Ranking) -> float:
    """Tau-b of two rankings over the responses that both hold: 1 the same order, 0 none, -1 the reverse."""
    a, b = places(first), places(second)
    shared = sorted(set(a) & set(b))
    concordance = ties_a = ties_b = total = 0
    for one, other in combinations(shared, 2):
        x, y = np.sign(a[one] - a[other]), np.sign(b[one] - b[other])
        concordance += int(x * y)
        ties_a += x == 0
        ties_b += y == 0
        total += 1
    scale = math.sqrt((total - ties_a) * (total - ties_b))
    return concordance / scale if scale else math.nan


def kendall_w(rankings: Sequence[Ranking]) -> float:
    """Kendall's coefficient of concordance of m complete rankings of one task, corrected for ties: 0 to 1."""
    if len(rankings) < 2:
        return math.nan
    by_labeler = [places(ranking) for ranking in rankings]
    names = sorted(by_labeler[0])
    if any(sorted(found) != names for found in by_labeler):
        return math.nan
    table = np.array([[found[name] for name in names] for found in by_labeler])  # labelers x responses
    m, n = table.shape
    sums = table.sum(axis=0)
    ties = sum(len(group) ** 3 - len(group) for ranking in rankings for group in ranking)
    scale = m**2 * (n**3 - n) - m * ties
    return float(12 * ((sums - sums.mean()) ** 2).sum() / scale) if scale else math.nan


def coincidences(units: Iterable[Sequence[float]], values: Sequence[float]) -> np.ndarray:
    """Krippendorff's coincidence matrix over the sorted `values`: how often two labelers of a unit said this and that.

    Each unit is what the labelers who judged it said, in any order; one with fewer than two values adds nothing.
    """
    index = {value: place for place, value in enumerate(values)}
    matrix = np.zeros((len(values), len(values)))
    for unit in units:
        if len(unit) > 1:
            seen = np.bincount([index[value] for value in unit], minlength=len(values)).astype(float)
            matrix += (np.outer(seen, seen) - np.diag(seen)) / (len(unit) - 1)
    return matrix


def alpha_of(matrices: np.ndarray) -> np.ndarray:
    """Alpha for ordinal values of each coincidence matrix in `matrices` (..., V, V): 1 all agree, 0 as by chance."""
    totals = matrices.sum(axis=-1)
    upto = np.cumsum(totals, axis=-1) - totals / 2  # values below, and half of those alike
    distance = (upto[..., :, None] - upto[..., None, :]) ** 2
    observed = (matrices * distance).sum(axis=(-1, -2))
    chance = (totals[..., :, None] * totals[..., None, :] * distance).sum(axis=(-1, -2))
    with np.errstate(invalid="ignore", divide="ignore"):
        return 1 - (totals.sum(axis=-1) - 1) * observed / chance


def krippendorff_alpha(units: Iterable[Sequence[float]]) -> float:
    """Krippendorff's alpha for ordinal values, after "Computing Krippendorff's Alpha-Reliability" (2011), section E."""
    units = list(units)
    values = sorted({value for unit in units for value in unit})
    return float(alpha_of(coincidences(units, values))) if values else math.nan


def _units(rankings: Sequence[Ranking]) -> list[list[float]]:
    """The places that each response of a task got."""
    by_labeler = [places(ranking) for ranking in rankings]
    names = sorted({name for found in by_labeler for name in found})
    return [[found[name] for found in by_labeler if name in found] for name in names]


class Agreement(NamedTuple):
    """All measures over the tasks that several labelers ranked."""

    pairwise: Estimate
    kendall_tau: Estimate
    kendall_w: Estimate
    krippendorff_alpha: Estimate


def _draws(tasks: int, rng: np.random.Generator) -> np.ndarray:
    """Bootstrap weights (BOOTSTRAP_SAMPLES + 1, tasks): how often each task is drawn; the first row draws each once."""
    resampled = rng.multinomial(tasks, np.full(tasks, 1 / tasks), size=BOOTSTRAP_SAMPLES)
    return np.vstack([np.ones(tasks), resampled])


def _estimate(statistics: np.ndarray, tasks: int) -> Estimate:
    """The first of `statistics` with the interval that the others span."""
    known = statistics[1:][~np.isnan(statistics[1:])]
    low, high = np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]) if known.size else (math.nan, math.nan)
    return Estimate(float(statistics[0]), float(low), float(high), tasks)


def _ratio(numerators: Sequence[float], denominators: Sequence[float], draws: np.ndarray) -> Estimate:
    """Sum over tasks of `numerators` / sum of `denominators`, resampled."""
    if not numerators:
        return Estimate(math.nan, math.nan, math.nan, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        statistics = (draws @ np.asarray(numerators)) / (draws @ np.asarray(denominators))
    return _estimate(statistics, len(numerators))


def share_alike(counts: Sequence[Counts], rng: np.random.Generator) -> Estimate:
    """The share of pairs alike over tasks, resampled by task."""
    draws = _draws(len(counts), rng) if counts else np.ones((1, 0))
    return _ratio([count.alike for count in counts], [count.compared for count in counts], draws)


def _mean(values: Sequence[float], draws: np.ndarray) -> Estimate:
    """The mean of what can be measured of `values`, one per task, resampled."""
    known = [not math.isnan(value) for value in values]
    return _ratio([value if there else 0.0 for value, there in zip(values, known, strict=True)], known, draws)


def _mean_tau(rankings: Sequence[Ranking]) -> float:
    taus = [kendall_tau(first, second) for first, second in combinations(rankings, 2)]
    known = [tau for tau in taus if not math.isnan(tau)]
    return sum(known) / len(known) if known else math.nan


def measure(rankings: TaskRankings, rng: np.random.Generator) -> Agreement:
    """Every measure of agreement over the tasks with several rankings, with intervals from resampled tasks."""
    several = [list(given) for given in rankings.values() if len(given) > 1]
    draws = _draws(len(several), rng) if several else np.ones((1, 0))
    counts = [task_counts(given) for given in several]
    units = [_units(given) for given in several]
    values = sorted({value for task in units for unit in task for value in unit})
    if several:
        matrices = np.array([coincidences(task, values) for task in units])
        alpha = _estimate(alpha_of(np.tensordot(draws, matrices, axes=1)), len(several))
    else:
        alpha = Estimate(math.nan, math.nan, math.nan, 0)
    return Agreement(
        pairwise=_ratio([count.alike for count in counts], [count.compared for count in counts], draws),
        kendall_tau=_mean([_mean_tau(given) for given in several], draws),
        kendall_w=_mean([kendall_w(given) for given in several], draws),
        krippendorff_alpha=alpha,
    )


@dataclass(frozen=True, slots=True)
class LabelerReport:
    """One labeler: how much, how fast, how far from the others; `suspicions` say what to ask that person about."""

    labeler: str
    simulated: bool
    annotations: int
    agreement: Estimate  # with the other labelers of the same tasks
    compared_pairs: int
    kept_order_share: float
    median_lead_time_s: float
    suspicions: tuple[str, ...]


class _Comparison(NamedTuple):
    task_id: str
    labelers: frozenset[str]
    counts: Counts


def _comparisons(annotations: Sequence[Annotation]) -> list[_Comparison]:
    """Every two annotations of one task by different labelers."""
    of_task: dict[str, list[Annotation]] = defaultdict(list)
    for annotation in annotations:
        of_task[annotation.task_id].append(annotation)
    return [
        _Comparison(task_id, frozenset((one.labeler, other.labeler)), compare(one.ranking, other.ranking))
        for task_id, given in of_task.items()
        for one, other in combinations(given, 2)
        if one.labeler != other.labeler
    ]


def _agreement_with_others(comparisons: Sequence[_Comparison], rng: np.random.Generator) -> Estimate:
    """The share of pairs alike, resampled by task: pairs of one task are not independent of each other."""
    alike: dict[str, int] = defaultdict(int)
    compared: dict[str, int] = defaultdict(int)
    for comparison in comparisons:
        alike[comparison.task_id] += comparison.counts.alike
        compared[comparison.task_id] += comparison.counts.compared
    draws = _draws(len(alike), rng) if alike else np.ones((1, 0))
    return _ratio(list(alike.values()), list(compared.values()), draws)


def _suspicions(
    own: Sequence[Annotation], agreement: Estimate, compared: int, others: float, min_lead_time_s: float
) -> tuple[str, ...]:
    found = []
    # Chance agrees on half of the pairs: at random is who surely stands nearer to chance than to the others.
    if compared >= MIN_PAIRS and agreement.high < (0.5 + others) / 2:
        found.append("orders at random")
    if len(own) >= MIN_ANNOTATIONS and kept_order_share(own) >= KEPT_ORDER_SHARE:
        found.append("keeps the shown order")
    if len(own) >= MIN_ANNOTATIONS and median(annotation.lead_time_s for annotation in own) < min_lead_time_s:
        found.append("is too fast to have read the responses")
    return tuple(found)


def kept_order_share(annotations: Sequence[Annotation]) -> float:
    """The share of `annotations` whose order is the one that was shown."""
    kept = sum(tuple((name,) for name in annotation.shown_order) == annotation.ranking for annotation in annotations)
    return kept / len(annotations)


def by_labeler(
    annotations: Sequence[Annotation], min_lead_time_s: float, rng: np.random.Generator
) -> list[LabelerReport]:
    """A report on each labeler, by name. Takes all annotations, those too that don't count as labels."""
    comparisons = _comparisons(annotations)
    reports = []
    for name in sorted({annotation.labeler for annotation in annotations}):
        own = [annotation for annotation in annotations if annotation.labeler == name]
        mine = [comparison for comparison in comparisons if name in comparison.labelers]
        rest = [comparison.counts for comparison in comparisons if name not in comparison.labelers]
        rest_compared = sum(counts.compared for counts in rest)
        others = sum(counts.alike for counts in rest) / rest_compared if rest_compared else math.nan
        agreement = _agreement_with_others(mine, rng)
        compared = sum(comparison.counts.compared for comparison in mine)
        reports.append(
            LabelerReport(
                labeler=name,
                simulated=own[0].simulated,
                annotations=len(own),
                agreement=agreement,
                compared_pairs=compared,
                kept_order_share=kept_order_share(own),
                median_lead_time_s=median(annotation.lead_time_s for annotation in own),
                suspicions=_suspicions(own, agreement, compared, others, min_lead_time_s),
            )
        )
    return reports

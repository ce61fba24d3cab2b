"""The arithmetic of evaluation: weighted means with intervals, and pass@k. `evals/paired.py` compares two models.

Scores are weighted means: a right answer counts 1, a document of the perplexity task counts its tokens.
Nothing here knows about models or files.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import comb, exp, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Metrics whose samples hold a mean logarithm; their value is the exponential of the weighted mean.
LOGARITHMIC = frozenset({"perplexity", "word_perplexity", "byte_perplexity"})

# Bootstrap draws made at once: 100 draws of 14,042 questions take 11 MB of indices.
DRAWS_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Score:
    """What one sample got for one metric."""

    value: float
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over `n` scored samples with its standard error and two-sided interval; None where n is 0."""

    value: float | None
    n: int
    stderr: float | None
    low: float | None
    high: float | None

    def to_row(self) -> dict[str, float | int | None]:
        return asdict(self)


UNSCORED = Estimate(None, 0, None, None, None)


def normal_quantile(probability: float) -> float:
    """z such that a standard normal variable is below it with `probability`."""
    return NormalDist().inv_cdf(probability)


def wilson(mean: float, n: int, z: float) -> tuple[float, float]:
    """Wilson's score interval for a proportion `mean` of `n` (Wilson 1927); z is 1.96 for two-sided 95 %."""
    centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(mean * (1 - mean) / n + z * z / (4 * n * n))
    low = 0.0 if mean == 0 else max(0.0, centre - half)  # exact, where rounding would leave 1e-17
    return low, 1.0 if mean == 1 else min(1.0, centre + half)


def weighted_mean(values: Floats, weights: Floats) -> float:
    """Σ weight·value / Σ weight."""
    return float(np.average(values, weights=weights))


def resampled_means(values: Floats, weights: Floats, draws: NDArray[np.int64]) -> Floats:
    """Weighted mean of every draw; `draws` has shape (draws, n)."""
    return np.asarray((values[draws] * weights[draws]).sum(axis=1) / weights[draws].sum(axis=1), dtype=np.float64)


def estimate(scores: Sequence[Score], alpha: float, rng: np.random.Generator, draws: int = 1000) -> Estimate:
    """Mean of `scores` with a two-sided 1 − `alpha` interval: Wilson's for 0/1 scores, else a percentile bootstrap."""
    if not scores:
        return UNSCORED
    values = np.array([score.value for score in scores], dtype=np.float64)
    weights = np.array([score.weight for score in scores], dtype=np.float64)
    n, mean = len(scores), weighted_mean(values, weights)
    if np.isin(values, (0.0, 1.0)).all() and (weights == 1.0).all():
        low, high = wilson(mean, n, normal_quantile(1 - alpha / 2))
        return Estimate(mean, n, sqrt(mean * (1 - mean) / n), low, high)
    means = np.concatenate(
        [
            resampled_means(values, weights, rng.integers(0, n, size=(min(DRAWS_AT_ONCE, draws - done), n)))
            for done in range(0, draws, DRAWS_AT_ONCE)
        ]
    )
    low, high = (float(bound) for bound in np.quantile(means, [alpha / 2, 1 - alpha / 2]))
    return Estimate(mean, n, float(means.std()), low, high)


def estimate_metric(
    metric: str, scores: Sequence[Score], alpha: float, rng: np.random.Generator, draws: int = 1000
) -> Estimate:
    """As `estimate`, on the metric's own scale: a logarithmic metric comes back as its exponential."""
    mean = estimate(scores, alpha, rng, draws)
    if metric not in LOGARITHMIC or mean.value is None or mean.low is None or mean.high is None:
        return mean
    value = exp(mean.value)
    return Estimate(value, mean.n, value * (mean.stderr or 0.0), exp(mean.low), exp(mean.high))  # delta method


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Unbiased estimate of the chance that one of `k` samples is correct (Chen et al. 2021, equation 1)."""
    assert 0 <= correct <= samples, (samples, correct)
    assert 1 <= k <= samples, (samples, k)
    return 1.0 - comb(samples - correct, k) / comb(samples, k)

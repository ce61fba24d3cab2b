"""The arithmetic of evaluation: means with intervals, paired comparisons, pass@k, and the power a rule has at n.

Scores are weighted means: a right answer counts 1, a document of the perplexity task counts its tokens.
Nothing here knows about models or files.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil, comb, exp, inf, isfinite, sqrt
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


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidate minus baseline on the same samples: the difference with its one-sided bounds on either side.

    `variance` is that of one pair's difference (for right/wrong scores about the share of discordant pairs).
    """

    difference: float
    low: float
    high: float
    n: int
    variance: float


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


def _resampled_means(values: Floats, weights: Floats, draws: NDArray[np.int64]) -> Floats:
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
            _resampled_means(values, weights, rng.integers(0, n, size=(min(DRAWS_AT_ONCE, draws - done), n)))
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


def paired_bootstrap(
    candidate: Sequence[Score], baseline: Sequence[Score], alpha: float, rng: np.random.Generator, draws: int
) -> Comparison:
    """Resample pairs and take the one-sided `alpha` and 1 − `alpha` quantiles of the difference of weighted means.

    `candidate[i]` and `baseline[i]` are the same sample. Each side has its own weights, because two tokenizers
    count different tokens in the same text.
    """
    assert len(candidate) == len(baseline), (len(candidate), len(baseline))
    assert candidate, "a comparison needs at least one pair"
    n = len(candidate)
    values_c, weights_c = (np.array([getattr(score, part) for score in candidate]) for part in ("value", "weight"))
    values_b, weights_b = (np.array([getattr(score, part) for score in baseline]) for part in ("value", "weight"))
    mean_c, mean_b = weighted_mean(values_c, weights_c), weighted_mean(values_b, weights_b)
    differences = []
    for done in range(0, draws, DRAWS_AT_ONCE):
        drawn = rng.integers(0, n, size=(min(DRAWS_AT_ONCE, draws - done), n))
        differences.append(_resampled_means(values_c, weights_c, drawn) - _resampled_means(values_b, weights_b, drawn))
    low, high = (float(bound) for bound in np.quantile(np.concatenate(differences), [alpha, 1 - alpha]))
    # Linearized contributions of the pairs: their variance over n is that of the difference of two ratios.
    shares = (values_c - mean_c) * weights_c / weights_c.mean() - (values_b - mean_b) * weights_b / weights_b.mean()
    return Comparison(mean_c - mean_b, low, high, n, float(shares.var()))


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Unbiased estimate of the chance that one of `k` samples is correct (Chen et al. 2021, equation 1)."""
    assert 0 <= correct <= samples, (samples, correct)
    assert 1 <= k <= samples, (samples, k)
    return 1.0 - comb(samples - correct, k) / comb(samples, k)


def power_of(margin: float, n: int, discordance: float, alpha: float) -> float:
    """Chance that a candidate equal to its baseline passes a non-inferiority rule.

    Args:
        margin: how much worse the rule allows, in the metric's unit (for a ratio, in its logarithm).
        n: pairs.
        discordance: variance of one pair's difference; for right/wrong scores the share of discordant pairs.
        alpha: one-sided level of the interval.
    """
    if discordance == 0:
        return 1.0
    return NormalDist().cdf(margin * sqrt(n / discordance) - normal_quantile(1 - alpha))


def needed_n(margin: float, discordance: float, alpha: float, power: float) -> int:
    """Pairs with which `power_of` reaches `power`."""
    z = normal_quantile(1 - alpha) + normal_quantile(power)
    return max(1, ceil(discordance * (z / margin) ** 2))


def deciding_n(distance: float, variance: float, alpha: float) -> int | None:
    """Samples at which an interval of one-sided level `alpha` no longer reaches a limit `distance` away.

    None when the estimate lies on the limit: no n decides that.
    """
    n = variance * (normal_quantile(1 - alpha) / distance) ** 2 if distance else inf
    return ceil(n) if isfinite(n) else None

"""Two models on the same samples: their difference with its bounds, and the number of samples that a rule needs.

Right/wrong scores are compared by Tango's score interval (1998), everything else by a paired bootstrap. Where few
pairs differ a bootstrap is too sure of itself: with all of 3 % discordant pairs lost, a model worse by the whole margin
passed about twice as often as the level says, and without any discordant pair its interval has no width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf, isfinite, sqrt
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from evals.metrics import DRAWS_AT_ONCE, Floats, Score, normal_quantile, resampled_means, weighted_mean

BISECTIONS = 40  # halvings of the interval from −1 to 1: the bounds are exact to 1e-12
NEGLIGIBLE = 1e-12  # chance of a number of discordant pairs that is left out of an exact power


class Discordant(NamedTuple):
    """Pairs in which one side alone is right: the candidate (`won`) or the baseline (`lost`)."""

    won: int
    lost: int


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
    discordant: Discordant | None = None  # None where scores are no plain rights and wrongs


def score_statistic(won: Floats, lost: Floats, n: int, difference: float | Floats) -> Floats:
    """Standard normal where `difference` is the true one (Tango 1998, equation 9), positive where more was won.

    The variance is that under the hypothesis, with the nuisance parameter at its restricted maximum likelihood.
    Shapes broadcast.
    """
    b = -won - lost + (2 * n - won + lost) * difference
    c = -lost * difference * (1 - difference)
    q = (np.sqrt(np.maximum(b * b - 8 * n * c, 0)) - b) / (4 * n)
    variance = n * np.maximum(2 * q + difference * (1 - difference), 0)
    distance = won - lost - n * difference
    return np.asarray(np.divide(distance, np.sqrt(variance), out=np.zeros_like(distance), where=variance > 0))


def score_interval(pairs: Discordant, n: int, alpha: float) -> tuple[float, float]:
    """The differences that a one-sided test of level `alpha` on either side does not reject."""
    won, lost = np.full(2, float(pairs.won)), np.full(2, float(pairs.lost))
    z = normal_quantile(1 - alpha) * np.array([1.0, -1.0])
    low: Floats = np.full(2, -1.0)
    high: Floats = np.full(2, 1.0)
    for _ in range(BISECTIONS):  # the statistic falls as the difference grows
        middle = (low + high) / 2
        above = score_statistic(won, lost, n, middle) > z
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return float(low[0]), float(high[1])


def paired_bootstrap(
    candidate: Sequence[Score], baseline: Sequence[Score], alpha: float, rng: np.random.Generator, draws: int
) -> Comparison:
    """Resample pairs and take the one-sided `alpha` and 1 − `alpha` quantiles of the difference of weighted means.

    `candidate[i]` and `baseline[i]` are the same sample. Each side has its own weights, because two tokenizers
    count different tokens in the same text.
    """
    n = len(candidate)
    values_c, weights_c = (np.array([getattr(score, part) for score in candidate]) for part in ("value", "weight"))
    values_b, weights_b = (np.array([getattr(score, part) for score in baseline]) for part in ("value", "weight"))
    mean_c, mean_b = weighted_mean(values_c, weights_c), weighted_mean(values_b, weights_b)
    differences = []
    for done in range(0, draws, DRAWS_AT_ONCE):
        drawn = rng.integers(0, n, size=(min(DRAWS_AT_ONCE, draws - done), n))
        differences.append(resampled_means(values_c, weights_c, drawn) - resampled_means(values_b, weights_b, drawn))
    low, high = (float(bound) for bound in np.quantile(np.concatenate(differences), [alpha, 1 - alpha]))
    # Linearized contributions of the pairs: their variance over n is that of the difference of two ratios.
    shares = (values_c - mean_c) * weights_c / weights_c.mean() - (values_b - mean_b) * weights_b / weights_b.mean()
    return Comparison(mean_c - mean_b, low, high, n, float(shares.var()))


def is_right_or_wrong(scores: Sequence[Score]) -> bool:
    """Whether every score is a plain 0 or 1."""
    return all(score.value in (0.0, 1.0) and score.weight == 1.0 for score in scores)


def compare_pairs(
    candidate: Sequence[Score], baseline: Sequence[Score], alpha: float, rng: np.random.Generator, draws: int
) -> Comparison:
    """The difference on the same samples, by the interval that suits the scores; `candidate[i]` belongs to
    `baseline[i]`."""
    assert len(candidate) == len(baseline), (len(candidate), len(baseline))
    assert candidate, "a comparison needs at least one pair"
    if not (is_right_or_wrong(candidate) and is_right_or_wrong(baseline)):
        return paired_bootstrap(candidate, baseline, alpha, rng, draws)
    signs = [ours.value - theirs.value for ours, theirs in zip(candidate, baseline, strict=True)]
    pairs, n = Discordant(signs.count(1.0), signs.count(-1.0)), len(signs)
    difference = (pairs.won - pairs.lost) / n
    low, high = score_interval(pairs, n, alpha)
    return Comparison(difference, low, high, n, (pairs.won + pairs.lost) / n - difference**2, pairs)


def power_of(margin: float, n: int, spread: float, alpha: float) -> float:
    """Chance that a candidate equal to its baseline passes a non-inferiority rule, where means are about normal.

    Args:
        margin: how much worse the rule allows, in the metric's unit (for a ratio, in its logarithm).
        n: pairs.
        spread: variance of one pair's difference.
        alpha: one-sided level of the interval.
    """
    if spread == 0:
        return 1.0
    return NormalDist().cdf(margin * sqrt(n / spread) - normal_quantile(1 - alpha))


def _log_factorials(n: int) -> Floats:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])


def score_power(margin: float, n: int, discordance: float, alpha: float) -> float:
    """As `power_of` for right/wrong scores: exact, over every number of pairs won and lost by the score interval.

    `discordance` is the share of pairs in which one side alone is right, either side equally often.
    """
    z, logs = normal_quantile(1 - alpha), _log_factorials(n)
    total = 0.0
    for discordant in range(n + 1):
        if discordance >= 1 and discordant < n:
            continue
        rest = (n - discordant) * np.log1p(-discordance) if discordant < n else 0.0
        share = logs[n] - logs[n - discordant] + discordant * np.log(discordance / 2) + rest
        if share + discordant * np.log(2) - logs[discordant] < np.log(NEGLIGIBLE):
            continue
        won = np.arange(discordant + 1)
        lost = discordant - won
        passes = score_statistic(won.astype(float), lost.astype(float), n, -margin) >= z
        total += float(np.exp(share - logs[won] - logs[lost])[passes].sum())
    return min(total, 1.0)


def needed_n(margin: float, spread: float, alpha: float, power: float) -> int:
    """Pairs with which `power_of` reaches `power`."""
    z = normal_quantile(1 - alpha) + normal_quantile(power)
    return max(1, ceil(spread * (z / margin) ** 2))


def needed_score_n(margin: float, discordance: float, alpha: float, power: float) -> int:
    """Pairs with which `score_power` reaches `power`, to 1 %."""
    n = needed_n(margin, discordance, alpha, power)
    while score_power(margin, n, discordance, alpha) < power:
        n += max(1, n // 100)
    return n


def samples_to_decide(distance: float, variance: float, alpha: float) -> int | None:
    """Samples at which an interval of one-sided level `alpha` no longer reaches a limit `distance` away.

    None when the estimate lies on the limit: no n decides that.
    """
    n = variance * (normal_quantile(1 - alpha) / distance) ** 2 if distance else inf
    return ceil(n) if isfinite(n) else None


def deciding_n(found: Comparison, limit: float, alpha: float) -> int | None:
    """Pairs at which what was measured would decide against `limit`, were more pairs like these."""
    if found.discordant is None:
        return samples_to_decide(limit - found.difference, found.variance, alpha)
    won, lost = (np.array(float(count)) for count in found.discordant)
    statistic = float(score_statistic(won, lost, found.n, limit))  # grows with the root of n
    n = found.n * (normal_quantile(1 - alpha) / statistic) ** 2 if statistic else inf
    return ceil(n) if isfinite(n) else None

"""Two models on the same samples, against numbers worked by hand or by simulation."""

from math import isclose, sqrt

import numpy as np
import pytest

from evals.metrics import Score, normal_quantile, wilson
from evals.paired import (
    Comparison,
    Discordant,
    compare_pairs,
    deciding_n,
    needed_n,
    needed_score_n,
    paired_bootstrap,
    power_of,
    samples_to_decide,
    score_interval,
    score_power,
    score_statistic,
)


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def scores(values: np.ndarray | list[float]) -> list[Score]:
    return [Score(float(value)) for value in values]


def test_the_score_statistic_of_no_difference_is_mcnemars() -> None:
    # 25 won, 15 lost: (25 - 15) / sqrt(25 + 15)
    found = score_statistic(np.array(25.0), np.array(15.0), 200, 0.0)
    assert isclose(float(found), 10 / sqrt(40))


def test_the_score_interval_ends_where_the_test_turns() -> None:
    low, high = score_interval(Discordant(25, 15), 200, 0.025)
    z = normal_quantile(0.975)
    assert isclose(float(score_statistic(np.array(25.0), np.array(15.0), 200, low)), z, abs_tol=1e-6)
    assert isclose(float(score_statistic(np.array(25.0), np.array(15.0), 200, high)), -z, abs_tol=1e-6)
    assert low < 0.05 < high


def test_without_discordant_pairs_the_interval_is_wilsons_of_none() -> None:
    low, high = score_interval(Discordant(0, 0), 20, 0.05)
    assert isclose(high, wilson(0.0, 20, normal_quantile(0.95))[1], rel_tol=1e-9)
    assert isclose(low, -high)


def test_sides_are_mirrored() -> None:
    low, high = score_interval(Discordant(9, 4), 50, 0.05)
    other_low, other_high = score_interval(Discordant(4, 9), 50, 0.05)
    assert isclose(low, -other_high, abs_tol=1e-12)
    assert isclose(high, -other_low, abs_tol=1e-12)


def test_rights_and_wrongs_need_no_draws_and_anything_else_is_resampled() -> None:
    binary = compare_pairs(scores([1, 1, 0, 0, 1]), scores([1, 0, 0, 1, 0]), 0.05, rng(), 10)
    assert binary.discordant == (2, 1)
    assert isclose(binary.difference, 0.2)
    assert isclose(binary.variance, 0.6 - 0.04)
    graded = compare_pairs(scores([1, 1, 0, 0, 0.5]), scores([1, 0, 0, 1, 0]), 0.05, rng(), 10)
    assert graded.discordant is None
    weighted = compare_pairs([Score(1.0, 2.0)], [Score(0.0, 2.0)], 0.05, rng(), 10)
    assert weighted.discordant is None


def test_pairing_removes_what_both_share() -> None:
    hard = np.random.default_rng(1).normal(0, 10, 200)
    found = paired_bootstrap(scores(hard + 0.5), scores(hard), 0.05, rng(), 500)
    assert isclose(found.difference, 0.5)
    assert found.high - found.low < 1e-9


def test_a_bootstrap_bound_covers_as_often_as_it_says() -> None:
    """One-sided 5 %: the true difference is below the lower bound in about 5 % of repeated experiments."""
    draw = np.random.default_rng(3)
    missed = 0
    for _ in range(300):
        first, second = draw.normal(0, 1, 120), draw.normal(0, 1, 120)
        missed += paired_bootstrap(scores(first), scores(second), 0.05, rng(), 300).low > 0
    assert 0.02 <= missed / 300 <= 0.09


@pytest.mark.parametrize("discordance", [0.03, 0.08, 0.3])
def test_a_score_bound_holds_its_level_also_where_few_pairs_differ(discordance: float) -> None:
    """A model worse by 3 points at n = 1,000 keeps a margin of 3 points in at most about 2.5 % of experiments."""
    shares = [(discordance - 0.03) / 2, (discordance + 0.03) / 2, 1 - discordance]
    won, lost, _ = np.random.default_rng(5).multinomial(1000, shares, size=40_000).T
    passed = score_statistic(won.astype(float), lost.astype(float), 1000, -0.03) >= normal_quantile(0.975)
    assert 0.015 < passed.mean() < 0.028


def test_power_agrees_with_simulation() -> None:
    won, lost, _ = np.random.default_rng(6).multinomial(200, [0.1, 0.1, 0.8], size=40_000).T
    passed = score_statistic(won.astype(float), lost.astype(float), 200, -0.07) >= normal_quantile(0.95)
    assert isclose(passed.mean(), score_power(0.07, 200, 0.2, 0.05), abs_tol=0.01)
    assert isclose(power_of(0.07, 200, 0.2, 0.05), score_power(0.07, 200, 0.2, 0.05), abs_tol=0.03)


def test_power_adds_up_over_all_outcomes() -> None:
    assert isclose(score_power(1 - 1e-9, 50, 0.3, 0.05), 1.0, abs_tol=1e-6)
    assert isclose(score_power(0.5, 40, 1.0, 0.05), 1.0, abs_tol=0.05)


def test_needed_n_reaches_the_power() -> None:
    n = needed_n(0.03, 0.08, 0.025, 0.9)
    assert power_of(0.03, n, 0.08, 0.025) >= 0.9 > power_of(0.03, n - 1, 0.08, 0.025)
    exact = needed_score_n(0.03, 0.08, 0.025, 0.9)
    assert score_power(0.03, exact, 0.08, 0.025) >= 0.9 > score_power(0.03, n, 0.08, 0.025)


def test_the_deciding_n_grows_with_the_square_of_closeness() -> None:
    far, near = samples_to_decide(0.2, 1.0, 0.05), samples_to_decide(0.1, 1.0, 0.05)
    assert far is not None
    assert near is not None
    assert isclose(near / far, 4, rel_tol=0.05)
    assert samples_to_decide(0.0, 1.0, 0.05) is None


def test_more_pairs_like_these_decide_at_the_deciding_n() -> None:
    found = compare_pairs(scores([1] * 48 + [0] * 52), scores([0] + [1] * 51 + [0] * 48), 0.05, rng(), 1)
    n = deciding_n(found, -0.1, 0.05)
    assert n is not None
    for pairs, holds in ((n, True), (int(n * 0.9), False)):
        grown = Discordant(*(round(count * pairs / found.n) for count in found.discordant or ()))
        assert (score_interval(grown, pairs, 0.05)[0] >= -0.1) == holds


def test_an_estimate_on_the_limit_is_never_decided() -> None:
    on_it = Comparison(-0.1, -0.2, 0.0, 10, 0.1, Discordant(0, 1))
    assert deciding_n(on_it, -0.1, 0.05) is None

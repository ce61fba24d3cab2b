"""The arithmetic against numbers worked by hand or by simulation."""

from math import exp, isclose, log, sqrt

import numpy as np
import pytest

from evals.metrics import (
    Score,
    deciding_n,
    estimate,
    estimate_metric,
    needed_n,
    paired_bootstrap,
    pass_at_k,
    power_of,
    wilson,
)


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def binary(text: str) -> list[Score]:
    return [Score(float(letter)) for letter in text]


def test_wilson_matches_a_worked_example() -> None:
    # 8 of 10 at z = 1.96: centre (0.8 + 0.19208) / 1.38416, half 1.96 sqrt(0.016 + 0.009604) / 1.38416
    low, high = wilson(0.8, 10, 1.96)
    assert isclose(low, 0.4901570, abs_tol=1e-5)
    assert isclose(high, 0.9433190, abs_tol=1e-5)


def test_wilson_of_none_and_all() -> None:
    assert wilson(0.0, 20, 1.645)[0] == 0.0
    assert wilson(1.0, 20, 1.645)[1] == 1.0
    assert isclose(wilson(1.0, 20, 1.645)[0], 20 / (20 + 1.645**2))


def test_a_mean_of_right_and_wrong_has_the_binomial_error() -> None:
    found = estimate(binary("1110"), 0.05, rng())
    assert found.value == 0.75
    assert found.n == 4
    assert isclose(found.stderr or 0, sqrt(0.75 * 0.25 / 4))


def test_nothing_scored_is_no_number() -> None:
    found = estimate([], 0.05, rng())
    assert found.value is None
    assert found.n == 0


def test_a_weighted_mean_counts_weights() -> None:
    found = estimate([Score(1.0, 3.0), Score(5.0, 1.0)], 0.05, rng())
    assert found.value == 2.0


def test_a_bootstrap_interval_is_close_to_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(10, 2, 400)
    found = estimate([Score(value) for value in values], 0.05, rng())
    half = 1.96 * values.std() / 20
    assert found.low is not None
    assert found.high is not None
    assert isclose(found.low, values.mean() - half, rel_tol=0.01)
    assert isclose(found.high, values.mean() + half, rel_tol=0.01)


def test_perplexity_is_the_exponential_of_the_mean_log_over_tokens() -> None:
    found = estimate_metric("perplexity", [Score(log(2), 100), Score(log(8), 100)], 0.05, rng())
    assert isclose(found.value or 0, 4.0)


def test_the_same_seed_gives_the_same_interval() -> None:
    scores = [Score(value) for value in (0.1, 0.7, 0.4, 0.9)]
    assert estimate(scores, 0.05, rng()) == estimate(scores, 0.05, rng())


def test_pairing_removes_what_both_share() -> None:
    hard = np.random.default_rng(1).normal(0, 10, 200)
    baseline = [Score(value) for value in hard]
    candidate = [Score(value + 0.5) for value in hard]
    found = paired_bootstrap(candidate, baseline, 0.05, rng(), 500)
    assert isclose(found.difference, 0.5)
    assert found.high - found.low < 1e-9


def test_a_paired_bound_covers_as_often_as_it_says() -> None:
    """One-sided 5 %: the true difference is below the lower bound in about 5 % of repeated experiments."""
    draw = np.random.default_rng(3)
    missed = 0
    for _ in range(300):
        first, second = (draw.random(120) < 0.6).astype(float), (draw.random(120) < 0.6).astype(float)
        found = paired_bootstrap([Score(x) for x in first], [Score(x) for x in second], 0.05, rng(), 300)
        missed += found.low > 0
    assert 0.02 <= missed / 300 <= 0.09


def test_pairs_that_differ_more_have_more_variance() -> None:
    found = paired_bootstrap(binary("1100110011"), binary("1010101010"), 0.05, rng(), 100)
    assert isclose(found.variance, 0.5, abs_tol=0.05)  # five of ten pairs are discordant, mean difference 0.1


@pytest.mark.parametrize(
    ("samples", "correct", "k", "expected"), [(4, 1, 1, 0.25), (4, 1, 4, 1.0), (5, 2, 2, 0.7), (3, 0, 2, 0.0)]
)
def test_pass_at_k_counts_combinations(samples: int, correct: int, k: int, expected: float) -> None:
    assert isclose(pass_at_k(samples, correct, k), expected)  # 5, 2, 2: 1 - C(3,2)/C(5,2) = 1 - 3/10


def test_power_of_the_demo_rule_is_what_the_table_says() -> None:
    assert isclose(power_of(0.10, 100, 0.10, 0.05), 0.935, abs_tol=0.002)


def test_power_of_agrees_with_simulation() -> None:
    draw = np.random.default_rng(5)
    passed = 0
    for _ in range(300):
        discordant = draw.random(200) < 0.2
        signs = np.where(draw.random(200) < 0.5, 1.0, 0.0)
        candidate, baseline = np.where(discordant, signs, 1.0), np.where(discordant, 1 - signs, 1.0)
        found = paired_bootstrap([Score(x) for x in candidate], [Score(x) for x in baseline], 0.05, rng(), 300)
        passed += found.low > -0.07
    assert isclose(passed / 300, power_of(0.07, 200, 0.2, 0.05), abs_tol=0.07)


def test_needed_n_reaches_the_power() -> None:
    n = needed_n(0.03, 0.08, 0.025, 0.9)
    assert power_of(0.03, n, 0.08, 0.025) >= 0.9 > power_of(0.03, n - 1, 0.08, 0.025)


def test_deciding_n_grows_with_the_square_of_closeness() -> None:
    far, near = deciding_n(0.2, 1.0, 0.05), deciding_n(0.1, 1.0, 0.05)
    assert far is not None
    assert near is not None
    assert isclose(near / far, 4, rel_tol=0.05)
    assert deciding_n(0.0, 1.0, 0.05) is None


def test_a_logarithmic_interval_stays_around_its_value() -> None:
    found = estimate_metric("perplexity", [Score(value, 10) for value in (1.0, 1.2, 0.8, 1.1)], 0.05, rng())
    assert found.low is not None
    assert found.high is not None
    assert found.low <= exp(1.025) <= found.high

"""The arithmetic against numbers worked by hand."""

from math import exp, isclose, log, sqrt

import numpy as np
import pytest

from evals.metrics import Score, estimate, estimate_metric, pass_at_k, wilson


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


@pytest.mark.parametrize(
    ("samples", "correct", "k", "expected"), [(4, 1, 1, 0.25), (4, 1, 4, 1.0), (5, 2, 2, 0.7), (3, 0, 2, 0.0)]
)
def test_pass_at_k_counts_combinations(samples: int, correct: int, k: int, expected: float) -> None:
    assert isclose(pass_at_k(samples, correct, k), expected)  # 5, 2, 2: 1 - C(3,2)/C(5,2) = 1 - 3/10


def test_a_logarithmic_interval_stays_around_its_value() -> None:
    found = estimate_metric("perplexity", [Score(value, 10) for value in (1.0, 1.2, 0.8, 1.1)], 0.05, rng())
    assert found.low is not None
    assert found.high is not None
    assert found.low <= exp(1.025) <= found.high

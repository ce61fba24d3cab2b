"""The gain of alignment: paired, with a bound."""

import pytest

from pipelines.rlhf.held_out import gain


def test_the_gain_is_paired_and_has_a_lower_bound() -> None:
    found = gain([1.0, 2.0, 3.0], [2.0, 3.0, 5.0])
    assert found["reward_gain"] == pytest.approx(4 / 3)
    # differences 1, 1, 2: standard deviation 0.57735, standard error 1/3; Student's t at 95 %, 2 degrees: 2.92
    assert found["reward_gain_low"] == pytest.approx(4 / 3 - 2.92 / 3, abs=1e-3)
    assert (found["reward_sft"], found["reward_aligned"]) == pytest.approx((2.0, 10 / 3))

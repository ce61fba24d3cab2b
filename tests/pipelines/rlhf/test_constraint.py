"""The multiplier of a bounded score: it grows over the bound, falls under it, and never goes below 0."""

import pytest

from pipelines.rlhf.constraint import LagrangeMultiplier


def test_it_follows_the_bound() -> None:
    start = LagrangeMultiplier(bound=0.2, learning_rate=0.5)
    assert start.updated(0.6).value == pytest.approx(0.2)
    assert start.updated(0.6).updated(0.1).value == pytest.approx(0.15)
    assert start.updated(0.0).value == 0.0

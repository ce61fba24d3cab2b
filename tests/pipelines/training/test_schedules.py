"""Schedules: warm-up, peak and floor are where they should be."""

import pytest

from pipelines.training.schedules import FLOOR, cosine, wsd


def test_it_warms_up_peaks_and_ends_at_the_floor() -> None:
    factors = [cosine(step, 101, 0.1) for step in range(101)]
    assert factors[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert factors[10] == max(factors) == 1
    assert factors[55] == pytest.approx((1 + FLOOR) / 2)
    assert factors[100] == pytest.approx(FLOOR)
    assert all(earlier > later for earlier, later in zip(factors[10:], factors[11:], strict=False))


@pytest.mark.parametrize(("steps", "share"), [(1, 0.0), (1, 1.0), (2, 0.5), (3, 1.0)])
def test_short_runs_stay_within_bounds(steps: int, share: float) -> None:
    assert all(0 < cosine(step, steps, share) <= 1 for step in range(steps))


def test_wsd_warms_up_stays_and_decays() -> None:
    factors = [wsd(step, 100, 0.1, 0.2) for step in range(100)]
    assert factors[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert factors[10:81] == [1.0] * 71
    assert factors[85] == pytest.approx(0.5)  # a quarter of the decay, and the root of a quarter is a half
    assert factors[99] == pytest.approx(1 - (19 / 20) ** 0.5)
    assert all(earlier > later for earlier, later in zip(factors[80:], factors[81:], strict=False))


@pytest.mark.parametrize(("steps", "warmup", "decay"), [(1, 0.0, 0.0), (1, 1.0, 1.0), (3, 0.0, 1.0), (4, 0.9, 0.9)])
def test_short_wsd_runs_stay_within_bounds(steps: int, warmup: float, decay: float) -> None:
    assert all(0 < wsd(step, steps, warmup, decay) <= 1 for step in range(steps))

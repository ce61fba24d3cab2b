"""The KL estimate and its controller against numbers worked by hand."""

import pytest
import torch

from pipelines.rlhf.kl import KlController, kl_per_token


def test_kl_is_the_difference_of_logprobs_on_the_mask() -> None:
    kl = kl_per_token(torch.tensor([[-1.0, -2.0]]), torch.tensor([[-1.5, -1.0]]), torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(kl, torch.tensor([[0.5, 0.0]]))


def test_the_controller_moves_the_coefficient_towards_the_target() -> None:
    controller = KlController(0.1, target=6.0, horizon=1000)
    assert controller.updated(9.0, 100).coefficient == pytest.approx(0.1 * 1.02)  # error clipped at 0.2
    assert controller.updated(5.4, 100).coefficient == pytest.approx(0.1 * 0.99)
    assert controller.updated(6.0, 100).coefficient == pytest.approx(0.1)


def test_without_a_target_the_coefficient_stays() -> None:
    controller = KlController(0.1, target=None)
    assert controller.updated(50.0, 1000) == controller

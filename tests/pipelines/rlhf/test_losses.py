"""The clipped losses against numbers worked by hand."""

import math

import torch

from pipelines.rlhf.losses import policy_loss, value_loss

ONES = torch.ones(1, 1)


def ratio(value: float) -> torch.Tensor:
    return torch.tensor([[math.log(value)]])


def test_a_gain_beyond_the_range_is_clipped() -> None:
    # ρ=1.5, A=2, ε=0.2: min(3, 2.4) = 2.4
    loss = policy_loss(ratio(1.5), torch.zeros(1, 1), 2 * ONES, ONES, clip_range=0.2)
    torch.testing.assert_close(loss.loss, torch.tensor(-2.4))
    assert loss.clip_fraction == 1


def test_a_loss_beyond_the_range_is_not_clipped() -> None:
    # ρ=1.5, A=−2: min(−3, −2.4) = −3
    loss = policy_loss(ratio(1.5), torch.zeros(1, 1), -2 * ONES, ONES, clip_range=0.2)
    torch.testing.assert_close(loss.loss, torch.tensor(3.0))
    assert loss.clip_fraction == 0


def test_at_the_old_policy_the_gradient_is_that_of_reinforce() -> None:
    logprobs = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    loss = policy_loss(logprobs, logprobs.detach(), torch.tensor([[3.0, -1.0]]), torch.ones(1, 2), 0.2)
    loss.loss.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(logprobs.grad, torch.tensor([[-1.5, 0.5]]))


def test_value_loss_takes_the_worse_of_plain_and_clipped() -> None:
    # V=2, V_old=1, R=3, ε=0.5: plain (2−3)²=1, clipped (1.5−3)²=2.25; half of the worse
    loss = value_loss(2 * ONES, ONES, 3 * ONES, ONES, clip_range=0.5)
    torch.testing.assert_close(loss.loss, torch.tensor(1.125))
    assert loss.clip_fraction == 1


def test_padding_never_matters() -> None:
    mask = torch.tensor([[1.0, 0.0]])
    logprobs = torch.tensor([[0.1, 5.0]])
    one = policy_loss(logprobs, torch.zeros(1, 2), torch.ones(1, 2), mask, 0.2).loss
    torch.testing.assert_close(one, torch.tensor(-math.exp(0.1)))

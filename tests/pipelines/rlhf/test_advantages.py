"""Rewards, advantages and whitening against numbers worked by hand."""

import torch

from pipelines.rlhf.advantages import generalized_advantages, masked_mean, token_rewards, whiten

MASK = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])


def test_the_score_lands_on_the_last_token_and_kl_everywhere() -> None:
    kl = torch.tensor([[0.1, -0.2, 0.3], [0.5, 0.4, 9.0]])
    rewards = token_rewards(torch.tensor([2.0, -1.0]), kl, MASK, kl_coefficient=0.5)
    torch.testing.assert_close(rewards, torch.tensor([[-0.05, 0.1, 2.0 - 0.15], [-0.25, -1.0 - 0.2, 0.0]]))


def test_advantages_worked_by_hand() -> None:
    rewards = torch.tensor([[0.0, 0.0, 1.0], [0.0, 2.0, 0.0]])
    values = torch.tensor([[0.5, 0.4, 0.2], [1.0, 1.0, 7.0]])
    # Row 0, γ=0.9, λ=0.5: δ2=1−0.2=0.8; δ1=0.9·0.2−0.4=−0.22; δ0=0.9·0.4−0.5=−0.14
    # A2=0.8; A1=−0.22+0.45·0.8=0.14; A0=−0.14+0.45·0.14=−0.077
    # Row 1: δ1=2−1=1; δ0=0.9·1−1=−0.1; A1=1; A0=−0.1+0.45=0.35
    found = generalized_advantages(rewards, values, MASK, gamma=0.9, gae_lambda=0.5)
    torch.testing.assert_close(found.advantages, torch.tensor([[-0.077, 0.14, 0.8], [0.35, 1.0, 0.0]]))
    torch.testing.assert_close(found.returns, torch.tensor([[0.423, 0.54, 1.0], [1.35, 2.0, 0.0]]))


def test_with_lambda_one_returns_are_discounted_sums() -> None:
    rewards = torch.tensor([[1.0, 2.0, 3.0]])
    found = generalized_advantages(rewards, torch.randn(1, 3), torch.ones(1, 3), gamma=0.5, gae_lambda=1.0)
    torch.testing.assert_close(found.returns, torch.tensor([[1 + 1 + 0.75, 2 + 1.5, 3.0]]))


def test_padding_never_matters() -> None:
    rewards, values = torch.randn(2, 3), torch.randn(2, 3)
    one = generalized_advantages(rewards, values, MASK, 0.9, 0.8)
    values[1, 2] = 100.0
    rewards[1, 2] = -100.0
    other = generalized_advantages(rewards, values, MASK, 0.9, 0.8)
    torch.testing.assert_close(one.advantages, other.advantages)


def test_whitening_gives_mean_zero_and_deviation_one_over_the_mask() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 1e6]])
    white = whiten(values, MASK)
    assert abs(masked_mean(white, MASK)) < 1e-6
    # five positions: the unbiased variance divides by four
    torch.testing.assert_close((white**2).sum() / 4, torch.tensor(1.0))
    kept = whiten(values, MASK, keep_mean=True)
    torch.testing.assert_close(masked_mean(kept, MASK), torch.tensor(3.0))
    assert white[1, 2] == 0


def test_after_a_prompt_the_score_still_lands_on_the_last_token() -> None:
    mask = torch.tensor([[0.0, 0.0, 1.0, 1.0, 0.0]])
    rewards = token_rewards(torch.tensor([2.0]), torch.zeros(1, 5), mask, kl_coefficient=0.1)
    assert rewards.tolist() == [[0.0, 0.0, 0.0, 2.0, 0.0]]
    found = generalized_advantages(rewards, torch.full((1, 5), 7.0), mask, gamma=1.0, gae_lambda=1.0)
    torch.testing.assert_close(found.returns, torch.tensor([[0.0, 0.0, 2.0, 2.0, 0.0]]))

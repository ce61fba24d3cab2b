"""Rewards per token, advantages and returns: what PPO learns from, as pure functions of tensors.

Shapes: B episodes, T positions. `mask` is 1 where a position belongs to the response, which is one run in each row, and
0 before and after it, on the prompt and on padding.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Advantages(NamedTuple):
    """`advantages` and `returns`, both [B, T] float32, zero where the mask is."""

    advantages: Tensor
    returns: Tensor


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` [B, T] over the positions where `mask` [B, T] is 1; a scalar."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def whiten(values: Tensor, mask: Tensor, keep_mean: bool = False) -> Tensor:
    """`values` [B, T] with mean 0 and standard deviation 1 over the mask; `keep_mean` scales only.

    The variance is the unbiased one. Source: Ziegler et al. 2019 (arXiv 1909.08593), where rewards keep their mean and
    advantages do not.
    """
    mean = masked_mean(values, mask)
    count = mask.sum()
    variance = masked_mean((values - mean) ** 2, mask) * count / (count - 1).clamp(min=1)
    whitened = (values - mean) * torch.rsqrt(variance + 1e-8)
    return (whitened + mean if keep_mean else whitened) * mask


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, kl_coefficient: float) -> Tensor:
    """Reward of each token: −β·KL everywhere, plus the episode's score at its last token.

    Args:
        scores: [B] reward model scores.
        kl: [B, T] per-token KL estimate, nats.
        mask: [B, T].
        kl_coefficient: β, reward per nat.

    Returns: [B, T]. Source: Ouyang et al. 2022 (arXiv 2203.02155), equation 2.
    """
    rewards = -kl_coefficient * kl * mask
    positions = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    last = (mask * positions).argmax(dim=1)
    return rewards.scatter_add(1, last[:, None], scores[:, None])


def generalized_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, gae_lambda: float
) -> Advantages:
    """Generalized advantage estimation over the response tokens.

    A_t = δ_t + γλ·A_{t+1} with δ_t = r_t + γ·V_{t+1} − V_t; after the last token both are 0. Returns are A + V.

    Args:
        rewards, values, mask: [B, T].
        gamma: discount per token.
        gae_lambda: λ, from 0 (one step) to 1 (Monte Carlo).

    Source: Schulman et al. 2015 (arXiv 1506.02438), equation 16.
    """
    values = values * mask
    advantages = torch.zeros_like(values)
    carried = values.new_zeros(len(values))
    for t in reversed(range(values.shape[1])):
        following = values[:, t + 1] if t + 1 < values.shape[1] else torch.zeros_like(carried)
        delta = rewards[:, t] + gamma * following - values[:, t]
        carried = (delta + gamma * gae_lambda * carried) * mask[:, t]
        advantages[:, t] = carried
    return Advantages(advantages, (advantages + values) * mask)

"""Rewards per token, advantages and returns: what PPO learns from, as pure functions of tensors.

Shapes: B episodes, T response positions. `mask` is 1 where a position holds a response token, 0 on padding.
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

    Source: Ziegler et al. 2019 (arXiv 1909.08593), where rewards keep their mean and advantages do not.
    """
    mean = masked_mean(values, mask)
    variance = masked_mean((values - mean) ** 2, mask)
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
    last = mask.sum(dim=1).long() - 1
    return rewards.index_put((torch.arange(len(scores)), last), scores, accumulate=True)


def generalized_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, gae_lambda: float
) -> Advantages:
    """Generalized advantage estimation over the response tokens.

    A_t = δ_t + γλ·A_{t+1} with δ_t = r_t + γ·V_{t+1} − V_t; after the last token both are 0. Returns are A + V.

    Args:
        rewards, values, mask: [B, T]; the mask is 1 on a prefix of each row.
        gamma: discount per token.
        gae_lambda: λ, from 0 (one step) to 1 (Monte Carlo).

    Source: Schulman et al. 2015 (arXiv 1506.02438), equation 16.
    """
    values = values * mask
    advantages = torch.zeros_like(values)
    carried = torch.zeros(len(values), dtype=values.dtype)
    for t in reversed(range(values.shape[1])):
        following = values[:, t + 1] if t + 1 < values.shape[1] else torch.zeros_like(carried)
        delta = rewards[:, t] + gamma * following - values[:, t]
        carried = (delta + gamma * gae_lambda * carried) * mask[:, t]
        advantages[:, t] = carried
    return Advantages(advantages, (advantages + values) * mask)

"""The clipped losses of PPO, as pure functions of tensors. Shapes: B episodes, T response positions."""

from typing import NamedTuple

import torch
from torch import Tensor

from pipelines.rlhf.advantages import masked_mean


class ClippedLoss(NamedTuple):
    """A scalar `loss` and the share of positions where clipping was active."""

    loss: Tensor
    clip_fraction: Tensor


def policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, clip_range: float
) -> ClippedLoss:
    """−min(ρ·A, clip(ρ, 1−ε, 1+ε)·A), averaged over the mask, with ρ = exp(logprobs − old_logprobs).

    Args:
        logprobs, old_logprobs: [B, T] nats, of the sampled tokens under the policy now and at rollout.
        advantages, mask: [B, T].
        clip_range: ε.

    Source: Schulman et al. 2017 (arXiv 1707.06347), equation 7.
    """
    ratio = torch.exp((logprobs - old_logprobs) * mask)
    plain = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip_range, 1 + clip_range)
    return ClippedLoss(
        masked_mean(torch.maximum(plain, clipped), mask), masked_mean((clipped > plain).to(mask.dtype), mask)
    )


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip_range: float) -> ClippedLoss:
    """½·max((V − R)², (clip(V, V_old ± ε) − R)²), averaged over the mask.

    Args:
        values, old_values, returns, mask: [B, T], in units of reward.
        clip_range: ε, in units of reward.

    Source: the value clipping of OpenAI's baselines PPO2, as Stiennon et al. 2020 (arXiv 2009.01325) use it.
    """
    clipped = torch.clamp(values, old_values - clip_range, old_values + clip_range)
    plain_error = (values - returns) ** 2
    clipped_error = (clipped - returns) ** 2
    loss = 0.5 * masked_mean(torch.maximum(plain_error, clipped_error), mask)
    return ClippedLoss(loss, masked_mean((clipped_error > plain_error).to(mask.dtype), mask))

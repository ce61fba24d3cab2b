"""Experience: episodes with their rewards, turned into what a PPO update learns from.

Shapes: B episodes, T = L − 1 predicted positions of sequences of up to L tokens.
"""

import statistics
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from pipelines.core.sections.alignment import Ppo
from pipelines.model.batching import like_lengths
from pipelines.model.engine import TransformersEngine
from pipelines.model.rewards import token_values
from pipelines.rlhf.advantages import generalized_advantages, masked_mean, token_rewards, whiten
from pipelines.rlhf.episodes import (
    Episodes,
    logprobs_from,
    logprobs_of,
    response_states,
    sampled_entropy,
    sequences,
)
from pipelines.rlhf.held_out import Scorer
from pipelines.rlhf.kl import kl_per_token


@dataclass(frozen=True, slots=True)
class Models:
    """The models of PPO. The engine samples from `policy` itself, so what was learned is what is sampled from next."""

    policy: PreTrainedModel
    ref_policy: PreTrainedModel | None  # None: the policy with its adapters off
    value_model: PreTrainedModel
    scorer: Scorer
    harm: Callable[[list[str]], list[float]] | None  # of response texts, 0 to 1
    engine: TransformersEngine
    adapters: PeftModel | None  # around `policy`, where it is trained as adapters

    @torch.no_grad()
    def ref_logprobs(self, episodes: Episodes, temperature: float) -> Tensor:
        """Log-probabilities [B, T] of the response tokens under the policy that training began with."""
        with self.adapters.disable_adapter() if self.adapters else nullcontext():
            return logprobs_of(self.ref_policy or self.policy, episodes, temperature)

    def texts(self, episodes: Episodes) -> list[str]:
        """The responses as text."""
        rows = zip(episodes.ids[:, 1:], episodes.response.bool(), strict=True)
        responses = [ids[response].tolist() for ids, response in rows]
        return self.engine.tokenizer.batch_decode(responses, skip_special_tokens=True)


class Pass(NamedTuple):
    """What policy and value model say of some episodes, with the graph to differentiate it: both [rows, T]."""

    rows: list[int]
    logprobs: Tensor
    values: Tensor


class Experience(NamedTuple):
    """What the update needs of a batch of B episodes; tensors are [B, T]."""

    episodes: Episodes
    logprobs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    first_passes: list[Pass]  # over the first update's episodes, or none


class Judged(NamedTuple):
    """A batch turned into experience, the step's figures, and for each episode its reward and KL (nats)."""

    experience: Experience
    figures: dict[str, float]
    rewards: list[float]
    divergences: list[float]


def values_of(model: PreTrainedModel, episodes: Episodes) -> Tensor:
    """The value of each state before a response token, [B, T]."""
    return token_values(model, episodes.ids, episodes.attention)[:, :-1] * episodes.response


def microbatches(episodes: Episodes, rows: Sequence[int], size: int) -> list[list[int]]:
    """`rows` in groups of at most `size`, like lengths together."""
    lengths = episodes.attention.sum(dim=1).tolist()
    return [[rows[place] for place in group] for group in like_lengths([lengths[row] for row in rows], size)]


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 − Var(returns − values) / Var(returns) over the mask [B, T]: 1 is perfect, 0 is as good as a constant."""

    def variance(numbers: Tensor) -> Tensor:
        return masked_mean((numbers - masked_mean(numbers, mask)) ** 2, mask)

    return float(1 - variance(returns - values) / variance(returns).clamp(min=1e-8))


def rewards_by_length(rewards: Sequence[float], lengths: Sequence[int]) -> dict[str, float]:
    """The mean reward of the shorter and the longer half of the responses, and how length and reward correlate."""
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    half = (len(order) + 1) // 2
    flat = len(set(rewards)) < 2 or len(set(lengths)) < 2
    return {
        "reward_shorter_half": statistics.mean(rewards[row] for row in order[:half]),
        "reward_longer_half": statistics.mean(rewards[row] for row in order[-half:]),
        "reward_length_correlation": 0.0 if flat else float(np.corrcoef(rewards, lengths)[0, 1]),
    }


@torch.no_grad()
def judge(
    models: Models, episodes: Episodes, params: Ppo, kl_coefficient: float, harm_multiplier: float, first: list[int]
) -> Judged:
    """Score a batch of episodes and turn the scores into advantages.

    Args:
        kl_coefficient: β, reward per nat.
        harm_multiplier: λ, reward per unit of harm; 0 where no harm is measured.
        first: the episodes that the first update is made from. Nothing changes before it, so when they are no more
            than a microbatch their passes through policy and value model are kept for the update.
    """
    kept = microbatches(episodes, first, len(first)) if len(first) <= params.microbatch_episodes else []
    known = {row for rows in kept for row in rows}
    others = [row for row in range(len(episodes.ids)) if row not in known]
    old, ref, value = (torch.zeros_like(episodes.response) for _ in range(3))
    first_passes, entropies = [], []
    for rows in [*kept, *microbatches(episodes, others, params.microbatch_episodes)]:
        part = episodes.rows(rows)
        width = part.response.shape[1]
        differentiable = rows[0] in known
        with torch.set_grad_enabled(differentiable):
            states = response_states(models.policy, part)
            logprobs = logprobs_from(states, models.policy, part, params.temperature)
            values = values_of(models.value_model, part)
        if differentiable:
            first_passes.append(Pass(rows, logprobs, values))
        old[rows, :width] = logprobs.detach()
        value[rows, :width] = values.detach()
        ref[rows, :width] = models.ref_logprobs(part, params.temperature)
        entropies.append(sampled_entropy(states, models.policy, params.temperature) * len(rows))
    mask = episodes.response
    rewards = models.scorer.score(sequences(episodes))
    harm = models.harm(models.texts(episodes)) if models.harm else [0.0] * len(rewards)
    missing_end = torch.tensor([0.0 if ended else 1.0 for ended in episodes.ended])
    scores = torch.tensor(rewards) - params.missing_eos_penalty * missing_end - harm_multiplier * torch.tensor(harm)
    kl = kl_per_token(old, ref, mask)
    by_token = token_rewards(scores.to(mask.device), kl, mask, kl_coefficient)
    if params.whiten_rewards:
        by_token = whiten(by_token, mask, keep_mean=True)
    estimated = generalized_advantages(by_token, value, mask, params.gamma, params.gae_lambda)
    divergences = kl.sum(dim=1).tolist()
    figures = {
        "reward": statistics.mean(rewards),
        "kl": statistics.mean(divergences),
        "kl_coefficient": kl_coefficient,
        "entropy": sum(entropies) / len(rewards),
        "response_tokens": statistics.mean(episodes.lengths),
        "tokens": float(episodes.attention.sum()),
        "ended_share": statistics.mean(episodes.ended),
        "explained_variance": explained_variance(value, estimated.returns, mask),
        **rewards_by_length(rewards, episodes.lengths),
    }
    if models.harm:
        figures |= {"harm": statistics.mean(harm), "harm_multiplier": harm_multiplier}
    experience = Experience(episodes, old, value, whiten(estimated.advantages, mask), estimated.returns, first_passes)
    return Judged(experience, figures, rewards, divergences)

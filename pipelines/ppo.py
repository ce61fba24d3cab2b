"""Aligns the SFT policy by PPO against the reward model, with a KL penalty towards the SFT policy.

In: artifacts/sft, artifacts/reward_model, the alignment and held-out prompts. Out: artifacts/ppo, a Hugging Face
folder, and the held-out reward of both policies on the same prompts and seeds.

One step: (1) the policy answers a batch of prompts; (2) the reward model scores each answer at its last token and the
reference policy gives the KL penalty; (3) advantages by GAE from the value model, which started as the reward model;
(4) clipped updates of policy and value model. Weights are trained in float32 and computed in `ppo.dtype`: updates of
this size vanish in bfloat16 weights.
"""

import math
import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from pipelines.core import artifacts
from pipelines.core.config import Ppo
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_rows, write_rows
from pipelines.core.records import Conversation
from pipelines.core.stage import Stage, open_stage
from pipelines.model.checkpoints import save_model
from pipelines.model.engine import Generation, Sampling, TransformersEngine
from pipelines.model.rewards import RewardScorer, pad_right, token_values
from pipelines.rlhf.advantages import generalized_advantages, masked_mean, token_rewards, whiten
from pipelines.rlhf.kl import KlController, kl_per_token
from pipelines.rlhf.losses import policy_loss, value_loss
from pipelines.training.seeding import seed_everything


class Episodes(NamedTuple):
    """A batch of prompts with sampled responses. B episodes, L tokens, T = L − 1 predicted positions."""

    ids: Tensor  # [B, L] prompt and response, padded right
    attention: Tensor  # [B, L]
    response: Tensor  # [B, T] 1 where position t predicts a response token
    ended: list[bool]  # whether the response ended by itself
    lengths: list[int]  # response tokens

    def rows(self, indices: Sequence[int]) -> "Episodes":
        chosen = list(indices)
        return Episodes(
            self.ids[chosen],
            self.attention[chosen],
            self.response[chosen],
            [self.ended[row] for row in chosen],
            [self.lengths[row] for row in chosen],
        )


class Experience(NamedTuple):
    """What the update needs of a batch; tensors are [B, T]."""

    episodes: Episodes
    logprobs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor


@dataclass
class Models:
    """The four models of PPO; `engine` holds the policy's weights in the dtype it samples fastest in."""

    policy: PreTrainedModel
    ref_policy: PreTrainedModel
    value_model: PreTrainedModel
    scorer: RewardScorer
    engine: TransformersEngine

    def hand_over_weights(self) -> None:
        """Copy the trained weights into the sampling engine."""
        self.engine.model.load_state_dict(self.policy.state_dict())


def response_tokens(generation: Generation, eos_id: int) -> list[int]:
    """The response's ids with the end token that a stopped response ends in."""
    tokens = list(generation.token_ids)
    if generation.finish_reason == "stop" and (not tokens or tokens[-1] != eos_id):
        tokens.append(eos_id)
    return tokens


def collate(
    prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], ended: list[bool], pad: int
) -> Episodes:
    """Prompts and responses as padded tensors."""
    ids, attention = pad_right([[*prompt, *response] for prompt, response in zip(prompts, responses, strict=True)], pad)
    mask = torch.zeros(ids.shape[0], ids.shape[1] - 1)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        mask[row, len(prompt) - 1 : len(prompt) - 1 + len(response)] = 1
    return Episodes(ids, attention, mask, ended, [len(response) for response in responses])


def rollout(
    engine: TransformersEngine, prompts: Sequence[Sequence[int]], params: Ppo, seeds: Sequence[int]
) -> Episodes:
    """Sample one response for each prompt; the seed of a prompt decides its response."""
    samplings = [Sampling(params.max_new_tokens, params.temperature, 1.0, seed) for seed in seeds]
    generations = engine.generate(prompts, samplings)
    eos = engine.tokenizer.eos_token_id
    responses = [response_tokens(generation, eos) or [eos] for generation in generations]
    ended = [generation.finish_reason == "stop" for generation in generations]
    return collate(prompts, responses, ended, engine.tokenizer.pad_token_id)


class Prediction(NamedTuple):
    """Of the tokens that follow: their log-probability and the distribution's entropy, [B, T] nats."""

    logprobs: Tensor
    entropy: Tensor


def predict(model: PreTrainedModel, episodes: Episodes, temperature: float, dtype: torch.dtype) -> Prediction:
    """Log-probabilities of the tokens of `episodes` under `model` at the sampling temperature."""
    with torch.autocast(model.device.type, dtype, enabled=dtype != torch.float32):
        logits = model(input_ids=episodes.ids, attention_mask=episodes.attention, use_cache=False).logits[:, :-1]
    # Prompts need no distribution: only positions that predict a response are worth the softmax.
    where = episodes.response.bool()
    chosen = torch.log_softmax(logits[where].float() / temperature, dim=-1)
    targets = episodes.ids[:, 1:][where]
    logprobs = torch.zeros_like(episodes.response)
    entropy = torch.zeros_like(episodes.response)
    logprobs[where] = chosen.gather(1, targets.unsqueeze(1)).squeeze(1)
    entropy[where] = -(chosen.detach().exp() * chosen.detach()).sum(dim=-1)
    return Prediction(logprobs, entropy)


def values_of(model: PreTrainedModel, episodes: Episodes, dtype: torch.dtype) -> Tensor:
    """The value of each state before a response token, [B, T]."""
    with torch.autocast(model.device.type, dtype, enabled=dtype != torch.float32):
        values = token_values(model, episodes.ids, episodes.attention)
    return values[:, :-1] * episodes.response


def minibatches(count: int, size: int, rng: random.Random) -> Iterator[list[int]]:
    """The indices 0…count−1, shuffled, in groups of `size`."""
    order = list(range(count))
    rng.shuffle(order)
    for start in range(0, count, size):
        yield order[start : start + size]


def sequences_of(episodes: Episodes) -> list[list[int]]:
    """The unpadded token ids of each episode."""
    return [ids[: int(mask.sum())].tolist() for ids, mask in zip(episodes.ids, episodes.attention, strict=True)]


def scores_of(scorer: RewardScorer, episodes: Episodes) -> list[float]:
    """Rewards of whole answers; one that was cut off is closed first, as every answer was that the model learned on."""
    eos = scorer.tokenizer.eos_token_id
    sequences = sequences_of(episodes)
    return scorer.score([ids if ids[-1] == eos else [*ids, eos] for ids in sequences])


@torch.no_grad()
def evaluate_batch(
    models: Models, episodes: Episodes, params: Ppo, controller: KlController, dtype: torch.dtype
) -> tuple[Experience, dict[str, float]]:
    """Score a batch of episodes and turn the scores into advantages."""
    size = params.minibatch_episodes
    logprobs, ref_logprobs, values, entropy = [], [], [], []
    for start in range(0, len(episodes.ids), size):
        part = episodes.rows(range(start, min(start + size, len(episodes.ids))))
        now = predict(models.policy, part, params.temperature, dtype)
        logprobs.append(now.logprobs)
        entropy.append(now.entropy)
        ref_logprobs.append(predict(models.ref_policy, part, params.temperature, dtype).logprobs)
        values.append(values_of(models.value_model, part, dtype))
    old, ref, value = torch.cat(logprobs), torch.cat(ref_logprobs), torch.cat(values)
    mask = episodes.response
    raw_scores = torch.tensor(scores_of(models.scorer, episodes))
    missing = torch.tensor([0.0 if ended else 1.0 for ended in episodes.ended])
    scores = raw_scores - params.missing_eos_penalty * missing
    kl = kl_per_token(old, ref, mask)
    rewards = token_rewards(scores, kl, mask, controller.coefficient)
    if params.whiten_rewards:
        rewards = whiten(rewards, mask, keep_mean=True)
    estimated = generalized_advantages(rewards, value, mask, params.gamma, params.gae_lambda)
    advantages = whiten(estimated.advantages, mask)
    residual = masked_mean((estimated.returns - value) ** 2, mask)
    spread = masked_mean((estimated.returns - masked_mean(estimated.returns, mask)) ** 2, mask)
    figures = {
        "reward": float(raw_scores.mean()),
        "kl": float(kl.sum(dim=1).mean()),
        "kl_coefficient": controller.coefficient,
        "entropy": float(masked_mean(torch.cat(entropy), mask)),
        "response_tokens": statistics.mean(episodes.lengths),
        "ended_share": statistics.mean(episodes.ended),
        "explained_variance": float(1 - residual / spread.clamp(min=1e-8)),
    }
    return Experience(episodes, old, value, advantages, estimated.returns), figures


def update(
    models: Models,
    optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer],
    experience: Experience,
    params: Ppo,
    rng: random.Random,
    dtype: torch.dtype,
) -> dict[str, float]:
    """`params.epochs` passes of clipped updates over one batch; returns the means of its figures."""
    policy_optimizer, value_optimizer = optimizers
    noted: dict[str, list[float]] = {}
    for _ in range(params.epochs):
        for rows in minibatches(len(experience.episodes.ids), params.minibatch_episodes, rng):
            part = experience.episodes.rows(rows)
            now = predict(models.policy, part, params.temperature, dtype)
            policy = policy_loss(
                now.logprobs, experience.logprobs[rows], experience.advantages[rows], part.response, params.clip_range
            )
            value = value_loss(
                values_of(models.value_model, part, dtype),
                experience.values[rows],
                experience.returns[rows],
                part.response,
                params.value_clip_range,
            )
            if not torch.isfinite(policy.loss + value.loss):
                raise BadInput("PPO's loss is not finite; lower ppo.learning_rate or raise ppo.kl_coefficient")
            norms = []
            for loss, model, optimizer in (
                (policy.loss, models.policy, policy_optimizer),
                (params.value_coefficient * value.loss, models.value_model, value_optimizer),
            ):
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), params.max_grad_norm)))
                optimizer.step()
            for name, figure in (
                ("policy_loss", policy.loss),
                ("value_loss", value.loss),
                ("clip_fraction", policy.clip_fraction),
                ("policy_grad_norm", norms[0]),
                ("value_grad_norm", norms[1]),
            ):
                noted.setdefault(name, []).append(float(figure))
    models.hand_over_weights()
    return {name: statistics.mean(figures) for name, figures in noted.items()}


def load_models(params: Ppo) -> Models:
    """The policy and value model to train, the frozen reference and reward model, and the sampling engine.

    Raises:
        BadInput: reward model and policy do not share a tokenizer.
    """
    engine = TransformersEngine(artifacts.SFT, params.dtype, params.episodes_per_step)
    scorer = RewardScorer.load(artifacts.REWARD_MODEL, params.dtype)
    if scorer.tokenizer.get_vocab() != engine.tokenizer.get_vocab():
        raise BadInput(
            f"the reward model ({len(scorer.tokenizer)} tokens) and the policy ({len(engine.tokenizer)} tokens) do not "
            "share a tokenizer; train the reward model from this run's SFT model"
        )
    device = scorer.model.device
    dtype = getattr(torch, params.dtype)
    return Models(
        policy=AutoModelForCausalLM.from_pretrained(artifacts.SFT, dtype=torch.float32).to(device).eval(),
        ref_policy=AutoModelForCausalLM.from_pretrained(artifacts.SFT, dtype=dtype).to(device).eval(),
        value_model=AutoModelForSequenceClassification.from_pretrained(
            artifacts.REWARD_MODEL, dtype=torch.float32, num_labels=1
        )
        .to(device)
        .eval(),
        scorer=scorer,
        engine=engine,
    )


def read_prompts(path: Path, engine: TransformersEngine) -> list[list[int]]:
    """The prompts of `path` rendered to token ids."""
    return [engine.render(Conversation.from_row(row).chat) for row in read_rows(path)]


class Trained(NamedTuple):
    """How many steps ran, why they stopped early (if they did), and one answer of each step."""

    steps: int
    stopped: str | None
    samples: list[dict[str, Any]]


def train(stage: Stage, models: Models, prompts: list[list[int]]) -> Trained:
    """Run the PPO steps."""
    params = stage.params.ppo
    dtype = getattr(torch, params.dtype)
    rng = random.Random(stage.params.seed)
    controller = KlController(params.kl_coefficient, params.kl_target)
    optimizers = (
        torch.optim.AdamW(models.policy.parameters(), lr=params.learning_rate, weight_decay=0.0, fused=True),
        torch.optim.AdamW(models.value_model.parameters(), lr=params.value_learning_rate, weight_decay=0.0, fused=True),
    )
    queue: list[int] = []
    samples = []
    for step in range(1, params.steps + 1):
        while len(queue) < params.episodes_per_step:
            epoch = list(range(len(prompts)))
            rng.shuffle(epoch)
            queue += epoch
        chosen, queue = queue[: params.episodes_per_step], queue[params.episodes_per_step :]
        seeds = [stage.params.seed * 1_000_003 + step * 10_007 + index for index in range(len(chosen))]
        episodes = rollout(models.engine, [prompts[index] for index in chosen], params, seeds)
        experience, figures = evaluate_batch(models, episodes, params, controller, dtype)
        figures |= update(models, optimizers, experience, params, rng, dtype)
        controller = controller.updated(figures["kl"], len(chosen))
        stage.tracker.log_metrics(figures, step=step)
        print(
            f"ppo step {step}/{params.steps}: reward {figures['reward']:.3f}, KL {figures['kl']:.2f} nats, "
            f"entropy {figures['entropy']:.2f}, clipped {figures['clip_fraction']:.3f}",
            flush=True,
        )
        samples.append({"step": step, "text": models.engine.tokenizer.decode(sequences_of(episodes)[0])})
        if figures["kl"] > params.kl_stop:
            reason = f"KL {figures['kl']:.1f} nats a response passed ppo.kl_stop {params.kl_stop} at step {step}"
            print(f"ppo stops early: {reason}")
            return Trained(step, reason, samples)
    return Trained(params.steps, None, samples)


@torch.no_grad()
def held_out_rewards(models: Models, prompts: list[list[int]], params: Ppo, seed: int) -> tuple[list[float], float]:
    """Rewards of one sampled response for each prompt, and the policy's mean KL to the reference on them."""
    seeds = [seed * 7_919 + index for index in range(len(prompts))]
    episodes = rollout(models.engine, prompts, params, seeds)
    dtype = getattr(torch, params.dtype)
    kl = []
    for start in range(0, len(prompts), params.minibatch_episodes):
        part = episodes.rows(range(start, min(start + params.minibatch_episodes, len(prompts))))
        now = predict(models.policy, part, params.temperature, dtype).logprobs
        ref = predict(models.ref_policy, part, params.temperature, dtype).logprobs
        kl += kl_per_token(now, ref, part.response).sum(dim=1).tolist()
    return scores_of(models.scorer, episodes), statistics.mean(kl)


def gain(before: list[float], after: list[float]) -> dict[str, float]:
    """The paired difference of rewards, with its one-sided 95 % lower bound (normal approximation)."""
    differences = [late - early for early, late in zip(before, after, strict=True)]
    mean = statistics.mean(differences)
    error = statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else math.inf
    return {
        "reward_sft": statistics.mean(before),
        "reward_ppo": statistics.mean(after),
        "reward_sft_sd": statistics.stdev(before) if len(before) > 1 else 0.0,
        "reward_gain": mean,
        "reward_gain_low": mean - 1.645 * error if math.isfinite(error) else mean,
        "reward_n": float(len(differences)),
    }


def main() -> None:
    with open_stage("ppo") as stage:
        params = stage.params.ppo
        seed_everything(stage.params.seed)
        models = load_models(params)
        prompts = read_prompts(artifacts.PROMPTS_ALIGNMENT, models.engine)
        held_out = read_prompts(artifacts.PROMPTS_HELD_OUT, models.engine)
        before, _ = held_out_rewards(models, held_out, params, stage.params.seed)
        steps, stopped, samples = train(stage, models, prompts)
        after, kl_final = held_out_rewards(models, held_out, params, stage.params.seed)
        save_model(models.engine.model, models.engine.tokenizer, stage.out)
        write_rows(stage.out / "samples.jsonl", samples)
        stage.tracker.log_artifact(stage.out / "samples.jsonl")
        stage.tracker.set_tags({"stopped_early": stopped or "no"})
        stage.write_metrics(
            gain(before, after) | {"kl_final": kl_final, "steps": float(steps), "stopped_early": float(bool(stopped))}
        )


if __name__ == "__main__":
    main()

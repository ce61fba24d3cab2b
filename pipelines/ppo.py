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
from scipy.stats import t as student_t
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from pipelines.core import artifacts
from pipelines.core.config import Ppo
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import Row, read_rows, write_rows
from pipelines.core.records import Conversation
from pipelines.core.stage import Stage, open_stage
from pipelines.model.checkpoints import save_model
from pipelines.model.engine import Sampling, TransformersEngine
from pipelines.model.rewards import RewardScorer, token_values
from pipelines.rlhf.advantages import generalized_advantages, masked_mean, token_rewards, whiten
from pipelines.rlhf.episodes import Episodes, divergence, entropy, finished_sequences, predict, roll_out
from pipelines.rlhf.kl import KlController, kl_per_token
from pipelines.rlhf.losses import policy_loss, value_loss
from pipelines.training.seeding import seed_everything

SAMPLES_PER_STEP = 4  # episodes of each step that are kept for looking at


class Experience(NamedTuple):
    """What the update needs of a batch of B episodes; tensors are [B, T]."""

    episodes: Episodes
    logprobs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor


class Judged(NamedTuple):
    """A batch turned into experience, the step's figures, and for each episode its reward and KL (nats)."""

    experience: Experience
    figures: dict[str, float]
    rewards: list[float]
    divergences: list[float]


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

    def score(self, episodes: Episodes) -> list[float]:
        """The reward of each episode."""
        return self.scorer.score(finished_sequences(episodes, self.engine.tokenizer.eos_token_id))


def samplings_of(params: Ppo, seed: int, step: int, count: int) -> list[Sampling]:
    """How the `count` responses of one step are drawn: from the whole distribution, each by a seed of its own."""
    seeds = random.Random(f"{seed} {step}")
    return [Sampling(params.max_new_tokens, params.temperature, 1.0, seeds.getrandbits(48)) for _ in range(count)]


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


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 − Var(returns − values) / Var(returns) over the mask [B, T]: 1 is perfect, 0 is as good as a constant."""

    def variance(numbers: Tensor) -> Tensor:
        return masked_mean((numbers - masked_mean(numbers, mask)) ** 2, mask)

    return float(1 - variance(returns - values) / variance(returns).clamp(min=1e-8))


@torch.no_grad()
def judge(models: Models, episodes: Episodes, params: Ppo, coefficient: float) -> Judged:
    """Score a batch of episodes and turn the scores into advantages; `coefficient` is that of the KL penalty."""
    dtype, size = getattr(torch, params.dtype), params.minibatch_episodes
    old, ref, value = (torch.zeros_like(episodes.response) for _ in range(3))
    entropies = []
    for start in range(0, len(episodes.ids), size):
        stop = min(start + size, len(episodes.ids))
        part = episodes.rows(range(start, stop))
        here = slice(start, stop), slice(part.response.shape[1])
        now = predict(models.policy, part, params.temperature, dtype)
        old[here] = now.logprobs
        ref[here] = predict(models.ref_policy, part, params.temperature, dtype).logprobs
        value[here] = values_of(models.value_model, part, dtype)
        entropies.append(float(entropy(now.logits)))
    mask = episodes.response
    rewards = models.score(episodes)
    missing_end = torch.tensor([0.0 if ended else 1.0 for ended in episodes.ended])
    scores = (torch.tensor(rewards) - params.missing_eos_penalty * missing_end).to(mask.device)
    kl = kl_per_token(old, ref, mask)
    by_token = token_rewards(scores, kl, mask, coefficient)
    if params.whiten_rewards:
        by_token = whiten(by_token, mask, keep_mean=True)
    estimated = generalized_advantages(by_token, value, mask, params.gamma, params.gae_lambda)
    divergences = kl.sum(dim=1).tolist()
    figures = {
        "reward": statistics.mean(rewards),
        "kl": statistics.mean(divergences),
        "kl_coefficient": coefficient,
        "entropy": statistics.mean(entropies),
        "response_tokens": statistics.mean(episodes.lengths),
        "ended_share": statistics.mean(episodes.ended),
        "explained_variance": explained_variance(value, estimated.returns, mask),
    }
    experience = Experience(episodes, old, value, whiten(estimated.advantages, mask), estimated.returns)
    return Judged(experience, figures, rewards, divergences)


def update(
    models: Models,
    optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer],
    experience: Experience,
    params: Ppo,
    rng: random.Random,
) -> dict[str, float]:
    """`params.epochs` passes of clipped updates over one batch; returns the means of its figures.

    Raises:
        BadInput: a loss is not finite.
    """
    dtype = getattr(torch, params.dtype)
    noted: dict[str, list[float]] = {}
    for _ in range(params.epochs):
        for rows in minibatches(len(experience.episodes.ids), params.minibatch_episodes, rng):
            part = experience.episodes.rows(rows)
            old, values, advantages, returns = (
                tensor[rows, : part.response.shape[1]]
                for tensor in (experience.logprobs, experience.values, experience.advantages, experience.returns)
            )
            now = predict(models.policy, part, params.temperature, dtype).logprobs
            policy = policy_loss(now, old, advantages, part.response, params.clip_range)
            predicted = values_of(models.value_model, part, dtype)
            value = value_loss(predicted, values, returns, part.response, params.value_clip_range)
            if not torch.isfinite(policy.loss + value.loss):
                raise BadInput("PPO's loss is not finite; lower ppo.learning_rate or raise ppo.kl_coefficient")
            norms = []
            for loss, model, optimizer in (
                (policy.loss, models.policy, optimizers[0]),
                (params.value_coefficient * value.loss, models.value_model, optimizers[1]),
            ):
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), params.max_grad_norm)))
                optimizer.step()
            for name, figure in (
                ("policy_loss", policy.loss.detach()),
                ("value_loss", value.loss.detach()),
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

    def load(kind: Any, folder: Path, dtype: torch.dtype) -> PreTrainedModel:
        # Without dropout throughout: the ratio of two policies would be noise otherwise.
        return kind.from_pretrained(folder, dtype=dtype).to(engine.device).eval()

    return Models(
        policy=load(AutoModelForCausalLM, artifacts.SFT, torch.float32),
        ref_policy=load(AutoModelForCausalLM, artifacts.SFT, getattr(torch, params.dtype)),
        value_model=load(AutoModelForSequenceClassification, artifacts.REWARD_MODEL, torch.float32),
        scorer=scorer,
        engine=engine,
    )


def read_prompts(path: Path, engine: TransformersEngine) -> list[list[int]]:
    """The prompts of `path` rendered to token ids."""
    return [engine.render(Conversation.from_row(row).chat) for row in read_rows(path)]


def endless(count: int, rng: random.Random) -> Iterator[int]:
    """The indices 0…count−1 in a new order each time they have run out."""
    while True:
        order = list(range(count))
        rng.shuffle(order)
        yield from order


def samples_of(step: int, prompts: Sequence[Sequence[int]], judged: Judged, engine: TransformersEngine) -> list[Row]:
    """The first episodes of a step as text, with reward and KL."""
    sequences = finished_sequences(judged.experience.episodes, engine.tokenizer.eos_token_id)
    return [
        {
            "step": step,
            "prompt": engine.tokenizer.decode(prompts[row]),
            "response": engine.tokenizer.decode(sequences[row][len(prompts[row]) :], skip_special_tokens=True),
            "reward": round(judged.rewards[row], 4),
            "kl": round(judged.divergences[row], 4),
        }
        for row in range(min(SAMPLES_PER_STEP, len(sequences)))
    ]


class Trained(NamedTuple):
    """How many steps updated the policy, why they stopped early (if they did), and some answers of each step."""

    steps: int
    stopped: str | None
    samples: list[Row]


def train(stage: Stage, models: Models, prompts: list[list[int]]) -> Trained:
    """Run the PPO steps."""
    params = stage.params.ppo
    rng = random.Random(stage.params.seed)
    controller = KlController(params.kl_coefficient, params.kl_target)
    optimizers = (
        torch.optim.AdamW(models.policy.parameters(), lr=params.learning_rate, weight_decay=0.0, fused=True),
        torch.optim.AdamW(models.value_model.parameters(), lr=params.value_learning_rate, weight_decay=0.0, fused=True),
    )
    order = endless(len(prompts), rng)
    samples: list[Row] = []
    for step in range(1, params.steps + 1):
        chosen = [prompts[next(order)] for _ in range(params.episodes_per_step)]
        samplings = samplings_of(params, stage.params.seed, step, len(chosen))
        judged = judge(models, roll_out(models.engine, chosen, samplings), params, controller.coefficient)
        samples += samples_of(step, chosen, judged, models.engine)
        figures = judged.figures
        if figures["kl"] > params.kl_stop:
            stage.tracker.log_metrics(figures, step=step)
            reason = f"KL {figures['kl']:.1f} nats a response passed ppo.kl_stop {params.kl_stop} at step {step}"
            print(f"ppo stops early: {reason}", flush=True)
            return Trained(step - 1, reason, samples)
        figures |= update(models, optimizers, judged.experience, params, rng)
        controller = controller.updated(figures["kl"], len(chosen))
        stage.tracker.log_metrics(figures, step=step)
        print(
            f"step {step}/{params.steps}: reward {figures['reward']:.3f}, KL {figures['kl']:.2f} nats, "
            f"entropy {figures['entropy']:.2f}, clipped {figures['clip_fraction']:.3f}, "
            f"explained variance {figures['explained_variance']:.2f}",
            flush=True,
        )
    return Trained(params.steps, None, samples)


def gain(before: list[float], after: list[float]) -> dict[str, float]:
    """The paired difference of at least two rewards with its one-sided 95 % lower bound by Student's t."""
    differences = [late - early for early, late in zip(before, after, strict=True)]
    mean, n = statistics.mean(differences), len(differences)
    error = statistics.stdev(differences) / math.sqrt(n)
    return {
        "reward_sft": statistics.mean(before),
        "reward_ppo": statistics.mean(after),
        "reward_sft_sd": statistics.stdev(before),
        "reward_gain": mean,
        "reward_gain_low": mean - float(student_t.ppf(0.95, n - 1)) * error,
        "reward_n": float(n),
    }


def main() -> None:
    with open_stage("ppo") as stage:
        params = stage.params.ppo
        seed_everything(stage.params.seed)
        models = load_models(params)
        prompts = read_prompts(artifacts.PROMPTS_ALIGNMENT, models.engine)
        held_out = read_prompts(artifacts.PROMPTS_HELD_OUT, models.engine)
        if not prompts or len(held_out) < 2:
            raise BadInput(
                f"{len(prompts)} alignment and {len(held_out)} held-out prompts; at least 1 and 2 are needed, "
                "see prepare_sft in params.yaml"
            )
        samplings = samplings_of(params, stage.params.seed, 0, len(held_out))  # the same before and after
        before = models.score(roll_out(models.engine, held_out, samplings))
        steps, stopped, samples = train(stage, models, prompts)
        answers = roll_out(models.engine, held_out, samplings)
        kl = divergence(
            models.engine.model,
            models.ref_policy,
            answers,
            params.temperature,
            getattr(torch, params.dtype),
            params.minibatch_episodes,
        )
        save_model(models.engine.model, models.engine.tokenizer, stage.out)
        write_rows(stage.out / "samples.jsonl", samples)
        stage.tracker.log_artifact(stage.out / "samples.jsonl")
        stage.tracker.set_tags({"stopped_early": stopped or "no"})
        stage.write_metrics(
            gain(before, models.score(answers))
            | {"kl_final": statistics.mean(kl), "steps": float(steps), "stopped_early": float(bool(stopped))}
        )


if __name__ == "__main__":
    main()

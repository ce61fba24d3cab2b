"""Aligns the SFT policy by PPO against the reward model, with a KL penalty towards the SFT policy.

In: artifacts/sft, artifacts/reward_model, the alignment and held-out prompts; what `ppo.pretraining_mix` names (token
shards or demonstrations), the moderation model where `ppo.harm_constraint` is on. Out: artifacts/ppo, a Hugging Face
folder, and the held-out reward of both policies on the same prompts and seeds.

One step: (1) the policy answers a batch of prompts; (2) the reward model scores each answer at its last token,
counted in standard deviations of the SFT policy's, and the reference policy gives the KL penalty; (3) advantages by
GAE from the value model, which started as the reward model; (4) clipped updates of policy and value model. All that a
step draws at random is a function of seed, step and prompt, so that a killed run goes on from a checkpoint to the
same weights.
"""

import functools
import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from pipelines.core import artifacts
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import Row, write_rows
from pipelines.core.sections.alignment import Ppo
from pipelines.core.stage import Stage, open_stage
from pipelines.model.adapters import merged, with_adapters
from pipelines.model.attention import suit_device
from pipelines.model.checkpoints import load_model, save_model
from pipelines.model.engine import TransformersEngine
from pipelines.model.moderation import Moderator, load_moderator
from pipelines.model.rewards import RewardScorer
from pipelines.rlhf.constraint import LagrangeMultiplier
from pipelines.rlhf.episodes import logprobs_of, roll_out
from pipelines.rlhf.experience import Experience, Judged, Models, Pass, judge, microbatches, values_of
from pipelines.rlhf.held_out import HeldOutReward, Scaled
from pipelines.rlhf.kl import KlController
from pipelines.rlhf.losses import policy_loss, value_loss
from pipelines.rlhf.mix import Mix, load_mix
from pipelines.rlhf.prompts import Prompt, prompts_of_step, read_prompts, samplings_of
from pipelines.training.checkpointing import Checkpoints, clear
from pipelines.training.compilation import keep_freed_memory
from pipelines.training.optimizer import MasterAdamW
from pipelines.training.progress import ProgressDisplay
from pipelines.training.seeding import seed_everything

SAMPLES_PER_STEP = 4  # episodes of each step that are kept for looking at
SHOWN = ("loss", "reward", "kl", "entropy")  # of a step's figures, beside the progress

Log = Callable[[dict[str, float], int], None]  # figures of a step


class Optimizers(NamedTuple):
    """Of the policy and the value model."""

    policy: MasterAdamW
    value: MasterAdamW

    @classmethod
    def of(cls, models: Models, params: Ppo) -> "Optimizers":
        """From here on both models compute in `ppo.dtype` and learn in float32."""
        return cls(
            MasterAdamW(models.policy, params.dtype, params.learning_rate),
            MasterAdamW(models.value_model, params.dtype, params.value_learning_rate),
        )


class Progress(NamedTuple):
    """Where training is after `step` steps, apart from the weights."""

    step: int
    kl: KlController
    harm: LagrangeMultiplier
    samples: list[Row]
    stopped: str | None = None


def minibatches(count: int, size: int, rng: random.Random) -> Iterator[list[int]]:
    """The indices 0…count−1, shuffled, in groups of `size`."""
    order = list(range(count))
    rng.shuffle(order)
    for start in range(0, count, size):
        yield order[start : start + size]


def passes(models: Models, experience: Experience, rows: list[int], params: Ppo) -> Iterator[Pass]:
    """The passes of policy and value model over the episodes `rows`, one microbatch at a time."""
    yield from experience.first_passes
    if experience.first_passes:
        return
    for part_rows in microbatches(experience.episodes, rows, params.microbatch_episodes):
        part = experience.episodes.rows(part_rows)
        yield Pass(part_rows, logprobs_of(models.policy, part, params.temperature), values_of(models.value_model, part))


def backward(models: Models, experience: Experience, rows: list[int], params: Ppo) -> dict[str, float]:
    """Add the gradients of both losses over the minibatch `rows`; returns the figures of its means.

    Raises:
        FloatingPointError: a loss is not finite.
    """
    noted = dict.fromkeys(("policy_loss", "value_loss", "clip_fraction", "value_clip_fraction"), 0.0)
    total = sum(experience.episodes.lengths[row] for row in rows)
    for part_rows, logprobs, values in passes(models, experience, rows, params):
        part = experience.episodes.rows(part_rows)
        old, old_values, advantages, returns = (
            tensor[part_rows, : part.response.shape[1]]
            for tensor in (experience.logprobs, experience.values, experience.advantages, experience.returns)
        )
        policy = policy_loss(logprobs, old, advantages, part.response, params.clip_range)
        value = value_loss(values, old_values, returns, part.response, params.value_clip_range)
        share = sum(part.lengths) / total  # the losses are means over tokens
        loss = share * (policy.loss + params.value_coefficient * value.loss)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"policy loss {float(policy.loss)}, value loss {float(value.loss)}")
        loss.backward()
        for name, figure in zip(
            noted, (policy.loss, value.loss, policy.clip_fraction, value.clip_fraction), strict=True
        ):
            noted[name] += share * float(figure.detach())
    return noted | {"loss": noted["policy_loss"] + params.value_coefficient * noted["value_loss"]}


def update(
    models: Models,
    optimizers: Optimizers,
    experience: Experience,
    params: Ppo,
    plan: list[list[int]],
    mix: Mix | None,
    updates_before: int,
) -> dict[str, float]:
    """One clipped update for each minibatch of `plan`; returns the means of its figures.

    Raises:
        FloatingPointError: a loss or a gradient is not finite; no weight has taken it up.
    """
    noted: dict[str, list[float]] = {}
    for number, rows in enumerate(plan):
        figures = backward(models, experience, rows, params)
        experience = experience._replace(first_passes=[])  # their graphs are spent
        if mix:
            loss = mix.loss(models.policy, updates_before + number)
            loss.backward()
            figures["pretraining_loss"] = float(loss.detach()) / mix.coefficient
        for name, optimizer in optimizers._asdict().items():
            rate = params.learning_rate if name == "policy" else params.value_learning_rate
            norm = optimizer.update(rate, params.max_grad_norm)
            if not math.isfinite(norm):
                raise FloatingPointError(f"gradient norm {norm} of the {name} model")
            figures[f"{name}_grad_norm"] = norm
        for name, figure in figures.items():
            noted.setdefault(name, []).append(figure)
    return {name: statistics.mean(figures) for name, figures in noted.items()}


def early_stop(figures: dict[str, float], params: Ppo) -> str | None:
    """Why training must not go on, or None."""
    if figures["kl"] > params.kl_stop:
        return f"KL {figures['kl']:.1f} nats a response passed ppo.kl_stop {params.kl_stop}"
    if figures["entropy"] < params.entropy_stop:
        return f"entropy {figures['entropy']:.3f} nats a token fell under ppo.entropy_stop {params.entropy_stop}"
    return None


def samples_of(step: int, prompts: Sequence[Prompt], judged: Judged, models: Models) -> list[Row]:
    """The first episodes of a step as text, with reward and KL."""
    texts = models.texts(judged.experience.episodes)
    return [
        {
            "step": step,
            "prompt": models.engine.tokenizer.decode(prompts[row].ids),
            "response": texts[row],
            "reward": round(judged.rewards[row], 4),
            "kl": round(judged.divergences[row], 4),
        }
        for row in range(min(SAMPLES_PER_STEP, len(texts)))
    ]


def save(checkpoints: Checkpoints, progress: Progress, optimizers: Optimizers) -> None:
    """Write a checkpoint."""
    state = {
        "kl_coefficient": progress.kl.coefficient,
        "harm_multiplier": progress.harm.value,
        "samples": progress.samples,
        "policy": optimizers.policy.state_dict(),
        "value": optimizers.value.state_dict(),
    }
    checkpoints.save(progress.step, state)


def resume(checkpoints: Checkpoints, start: Progress, optimizers: Optimizers) -> Progress:
    """Where the last checkpoint was, with its weights taken up; `start` when there is none."""
    state = checkpoints.latest()
    if state is None:
        return start
    optimizers.policy.load_state_dict(state["policy"])
    optimizers.value.load_state_dict(state["value"])
    return Progress(
        state["step"],
        replace(start.kl, coefficient=state["kl_coefficient"]),
        replace(start.harm, value=state["harm_multiplier"]),
        state["samples"],
    )


def train(
    models: Models,
    optimizers: Optimizers,
    prompts: Sequence[Prompt],
    params: Ppo,
    seed: int,
    log: Log,
    mix: Mix | None = None,
    checkpoints: Checkpoints | None = None,
) -> Progress:
    """Run the PPO steps, from the last checkpoint on where there is one.

    Raises:
        BadInput: a loss or a gradient is not finite.
    """
    bound = params.harm_constraint
    harm = LagrangeMultiplier(bound.max_score, bound.learning_rate) if bound else LagrangeMultiplier(1.0, 0.0)
    progress = Progress(0, KlController(params.kl_coefficient, params.kl_target), harm, [])
    if checkpoints:
        progress = resume(checkpoints, progress, optimizers)
    for step in range(progress.step + 1, params.steps + 1):
        chosen = prompts_of_step(prompts, seed, step, params.episodes_per_step)
        rng = random.Random(f"{seed} {step}")
        count, size = len(chosen), params.minibatch_episodes
        plan = [rows for _ in range(params.epochs) for rows in minibatches(count, size, rng)]
        samplings = samplings_of(chosen, params.max_new_tokens, params.temperature, seed, step)
        episodes = roll_out(models.engine, [prompt.ids for prompt in chosen], samplings)
        judged = judge(models, episodes, params, progress.kl.coefficient, progress.harm.value, plan[0])
        figures = judged.figures
        samples = progress.samples + samples_of(step, chosen, judged, models)
        if reason := early_stop(figures, params):
            log(figures, step)
            print(f"ppo stops early: {reason} at step {step}", flush=True)
            return progress._replace(samples=samples, stopped=f"{reason} at step {step}")
        try:
            figures |= update(models, optimizers, judged.experience, params, plan, mix, (step - 1) * len(plan))
        except FloatingPointError as error:
            raise BadInput(
                f"ppo: {error} at step {step} (prompts {', '.join(prompt.id for prompt in chosen)}); "
                "lower ppo.learning_rate or ppo.value_learning_rate, or use dtype float32"
            ) from error
        progress = Progress(
            step,
            progress.kl.updated(figures["kl"], count),
            progress.harm.updated(figures["harm"]) if models.harm else progress.harm,
            samples,
        )
        log(figures, step)
        if checkpoints and checkpoints.due():
            save(checkpoints, progress, optimizers)
    return progress


def load_models(params: Ppo) -> Models:
    """The policy and value model to train in float32, the frozen reference and reward model, and the sampling engine.

    Raises:
        BadInput: reward model and policy do not share a tokenizer.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = AutoTokenizer.from_pretrained(artifacts.SFT)
    scorer = RewardScorer.load(artifacts.REWARD_MODEL, params.dtype)
    scorer.require_tokenizer(tokenizer)

    def load(kind: Any, folder: Path, dtype: torch.dtype) -> PreTrainedModel:
        # Without dropout throughout: the ratio of two policies would be noise otherwise.
        return suit_device(kind.from_pretrained(folder, dtype=dtype).to(device).eval())

    policy = load(AutoModelForCausalLM, artifacts.SFT, torch.float32)
    return Models(
        policy=policy,
        ref_policy=None if params.lora else load(AutoModelForCausalLM, artifacts.SFT, getattr(torch, params.dtype)),
        value_model=load(AutoModelForSequenceClassification, artifacts.REWARD_MODEL, torch.float32),
        scorer=scorer,
        harm=largest_harm(load_moderator(artifacts.TRAIN_MODERATION)) if params.harm_constraint else None,
        engine=TransformersEngine(policy, tokenizer, params.episodes_per_step),
        adapters=with_adapters(policy, params.lora) if params.lora else None,
    )


def in_standard_deviations(models: Models, rewards: Sequence[float]) -> Models:
    """`models` whose rewards count in standard deviations of `rewards`, those of the policy that training begins with.

    A longer trained reward model spreads its rewards wider, and `kl_coefficient` must not weigh less for that
    (Ziegler et al. 2019, arXiv 1909.08593, section 2, normalise likewise). The value model, which starts as the reward
    model, is scaled in place.

    Raises:
        BadInput: all rewards are the same.
    """
    spread = statistics.stdev(rewards)
    if spread < 1e-6:
        raise BadInput(f"the reward model gives all {len(rewards)} answers the same reward; look at its labels")
    with torch.no_grad():
        models.value_model.score.weight /= spread
    return replace(models, scorer=Scaled(models.scorer, spread))


def largest_harm(moderator: Moderator) -> Callable[[list[str]], list[float]]:
    """The largest of a text's moderation scores."""
    return lambda texts: [max(scores.values()) for scores in moderator.score(texts)]


def report(stage: Stage, display: ProgressDisplay, figures: dict[str, float], step: int) -> None:
    """Show a step and log its figures."""
    display.step(step, int(figures["tokens"]), **{name: figures[name] for name in SHOWN if name in figures})
    stage.tracker.log_metrics(figures | {"tokens_per_s": display.tokens_per_s}, step)


def main() -> None:
    with open_stage("ppo") as stage:
        params, seed = stage.params.ppo, stage.params.seed
        seed_everything(seed)
        keep_freed_memory()
        models = load_models(params)
        prompts = read_prompts(artifacts.PROMPTS_ALIGNMENT, models.engine)
        if not prompts:
            raise BadInput("there are no prompts to align on; see prepare_sft.alignment_prompts")
        inputs = [artifacts.SFT, artifacts.REWARD_MODEL, artifacts.PROMPTS_ALIGNMENT]
        mix = None
        if params.pretraining_mix:
            inputs += [artifacts.TOKENIZE_CORPUS, artifacts.SFT_TRAIN]
            mix = load_mix(params.pretraining_mix, models.engine.tokenizer, seed)
        held_out = HeldOutReward(
            models.engine,
            models.scorer,
            read_prompts(artifacts.PROMPTS_HELD_OUT, models.engine),
            params.max_new_tokens,
            params.temperature,
            seed,
        )
        models = in_standard_deviations(models, held_out.before)
        checkpoints = Checkpoints.of(stage, inputs)
        optimizers = Optimizers.of(models, params)
        with ProgressDisplay("ppo", params.steps) as display:
            log = functools.partial(report, stage, display)
            trained = train(models, optimizers, prompts, params, seed, log, mix, checkpoints)
        ref_policy = models.ref_policy or load_model(artifacts.SFT, params.dtype).to(models.engine.device).eval()
        figures = held_out.after(ref_policy, params.microbatch_episodes)
        policy = merged(models.adapters, params.dtype) if models.adapters else models.policy
        save_model(policy, models.engine.tokenizer, stage.out)
        write_rows(stage.out / "samples.jsonl", trained.samples)
        stage.tracker.log_artifact(stage.out / "samples.jsonl")
        stage.tracker.set_tags({"stopped_early": trained.stopped or "no"})
        stage.write_metrics(figures | {"steps": float(trained.step), "stopped_early": float(bool(trained.stopped))})
        clear(stage)


if __name__ == "__main__":
    main()

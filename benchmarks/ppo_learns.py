"""Whether PPO learns a reward that can be checked, and what its KL penalty is for.

    make bench NAME=ppo_learns
    SEEDS=1 STEPS=10 make bench NAME=ppo_learns

The policy is SmolLM2-135M. The reward is a rule that everybody can check: the share of an answer's words that have at
most four letters, plain language, in standard deviations of the starting policy's answers to the held-out prompts. It
can be had honestly, by plain words, or by hacking it, by repeating tiny words that say nothing. Three seeds run with
the KL penalty, one without. Beside the reward stands what the rule does not see: the share of an answer's words that
it has not said before, and how likely the starting policy finds the answer.
"""

import json
import os
import re
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.base_models import ROOT, write_policy, write_reward_model
from pipelines import ppo
from pipelines.core import config
from pipelines.core.conversations import read_conversations
from pipelines.core.sections.alignment import Ppo
from pipelines.model.attention import suit_device
from pipelines.model.engine import TransformersEngine
from pipelines.rlhf.episodes import divergence, logprobs_of, roll_out, sequences
from pipelines.rlhf.experience import Models
from pipelines.rlhf.prompts import Prompt, samplings_of
from pipelines.training.compilation import keep_freed_memory

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SEEDS = int(os.environ.get("SEEDS", "3"))
STEPS = int(os.environ.get("STEPS", "30"))
LETTERS = 4  # of a short word, at most
HELD_OUT = 64  # prompts that are never trained on
KL_BOUND = 10.0  # nats per response
PLOT = ROOT / "docs" / "images" / "ppo_learns.png"
SETTINGS = {
    "steps": STEPS,
    "episodes_per_step": 32,
    "minibatch_episodes": 16,
    "microbatch_episodes": 16,
    "max_new_tokens": 32,
    "learning_rate": float(os.environ.get("LR", "5e-5")),
    "value_learning_rate": 1e-4,
    "gae_lambda": float(os.environ.get("LAM", "0.95")),
    "kl_coefficient": 0.1,
    "kl_stop": 1e9,
    "entropy_stop": 0.0,
}
WORD = re.compile(r"[^\W\d_]+")


def short_words(text: str) -> float:
    """The share of words with at most LETTERS letters; 0 without a word."""
    words = WORD.findall(text)
    return sum(len(word) <= LETTERS for word in words) / len(words) if words else 0.0


def new_words(text: str) -> float:
    """The share of words that did not come before in the text; 1 without a word."""
    words = [word.lower() for word in WORD.findall(text)]
    return len(set(words)) / len(words) if words else 1.0


class PlainLanguage:
    """The rule as a scorer of token sequences, scaled to `mean` 0 and `deviation` 1."""

    def __init__(self, engine: TransformersEngine, mean: float = 0.0, deviation: float = 1.0) -> None:
        self._engine, self._mean, self._deviation = engine, mean, deviation
        self._turn = "assistant\n"

    def score(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        texts = self._engine.tokenizer.batch_decode([list(ids) for ids in sequences], skip_special_tokens=True)
        answers = [text.rpartition(self._turn)[2] for text in texts]
        return [(short_words(answer) - self._mean) / self._deviation for answer in answers]


class Measured(NamedTuple):
    """A policy on the held-out prompts."""

    reward: float  # standard deviations of the starting policy's rewards, from their mean
    kl: float  # nats per response from the starting policy
    new_words: float  # share
    surprise: float  # nats per token under the starting policy
    answers: list[str]


def load(folder: Path, params: Ppo) -> Models:
    """Models that start from the base model; the value model's head starts at zero."""
    policy = suit_device(AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=torch.float32).eval())
    value_model = AutoModelForSequenceClassification.from_pretrained(folder / "reward", dtype=torch.float32).eval()
    torch.nn.init.zeros_(value_model.score.weight)
    engine = TransformersEngine(policy, AutoTokenizer.from_pretrained(folder / "policy"), params.episodes_per_step)
    dtype = getattr(torch, params.dtype)
    return Models(
        policy=policy,
        ref_policy=suit_device(AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=dtype).eval()),
        value_model=suit_device(value_model),
        scorer=PlainLanguage(engine),
        harm=None,
        engine=engine,
        adapters=None,
    )


@torch.no_grad()
def measure(models: Models, prompts: list[Prompt], params: Ppo, scorer: PlainLanguage) -> Measured:
    """The policy as it is, on the same prompts and seeds whenever it is called."""
    samplings = samplings_of(prompts, params.max_new_tokens, params.temperature, seed=0, step=0)
    answers = roll_out(models.engine, [prompt.ids for prompt in prompts], samplings)
    assert models.ref_policy is not None
    kl = divergence(models.policy, models.ref_policy, answers, params.temperature, 16)
    logprobs = logprobs_of(models.ref_policy, answers, params.temperature)
    texts = models.texts(answers)
    return Measured(
        statistics.mean(scorer.score(sequences(answers))),
        statistics.mean(kl),
        statistics.mean(map(new_words, texts)),
        float(-logprobs.sum() / answers.response.sum()),
        texts,
    )


class Run(NamedTuple):
    """One training: what was measured before and after, and the course of reward and KL over the steps."""

    before: Measured
    after: Measured
    rewards: list[float]
    divergences: list[float]


def run(folder: Path, prompts: list[Prompt], held_out: list[Prompt], params: Ppo, seed: int) -> Run:
    """Train once from the base model."""
    models = load(folder, params)
    optimizers = ppo.Optimizers.of(models, params)
    samplings = samplings_of(held_out, params.max_new_tokens, params.temperature, seed=0, step=0)
    answers = roll_out(models.engine, [prompt.ids for prompt in held_out], samplings)
    raw = models.scorer.score(sequences(answers))
    scorer = PlainLanguage(models.engine, statistics.mean(raw), statistics.stdev(raw))
    models = Models(**{name: getattr(models, name) for name in Models.__slots__} | {"scorer": scorer})
    before = measure(models, held_out, params, scorer)
    rewards: list[float] = []
    divergences: list[float] = []

    def log(figures: dict[str, float], step: int) -> None:
        rewards.append(figures["reward"])
        divergences.append(figures["kl"])
        print(f"  step {step:>3}: reward {figures['reward']:+.2f} sd, KL {figures['kl']:.2f} nats", flush=True)

    ppo.train(models, optimizers, prompts, params, seed, log)
    return Run(before, measure(models, held_out, params, scorer), rewards, divergences)


def plot(runs: dict[str, Run]) -> None:
    """Reward and KL over the steps, and what became of the answers."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), constrained_layout=True)
    for name, one in runs.items():
        style: dict[str, Any] = {"color": "#b3392f", "linestyle": "--"} if "without" in name else {}
        left.plot(range(1, len(one.rewards) + 1), one.rewards, label=name, **style)
        middle.plot(range(1, len(one.divergences) + 1), one.divergences, label=name, **style)
    left.set(xlabel="step", ylabel="reward (sd of the start)", title="reward by the rule")
    middle.set(xlabel="step", ylabel="KL from the start (nats a response)", title="distance")
    middle.axhline(KL_BOUND, color="#777777", linewidth=1)
    left.legend()
    names = ["start", *runs]
    measured = [next(iter(runs.values())).before, *(one.after for one in runs.values())]
    colors = ["#777777", *("#b3392f" if "without" in name else "#2f5d8a" for name in runs)]
    right.bar(names, [100 * one.new_words for one in measured], color=colors)
    right.set(ylabel="% of an answer's words", title="words not said before")
    right.tick_params(axis="x", rotation=30)
    PLOT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PLOT, dpi=110)


def main() -> None:
    keep_freed_memory()
    base = config.parse(config.resolve(ROOT, "smol", []), "the parameters").ppo
    with_penalty = base.model_copy(update=SETTINGS)
    without = with_penalty.model_copy(update={"kl_coefficient": 0.0})
    with tempfile.TemporaryDirectory(prefix="colloquy-learns-") as place:
        folder = Path(place)
        write_reward_model(write_policy(folder / "policy"), folder / "reward")
        engine = TransformersEngine.load(folder / "policy", "bfloat16", 1)
        conversations = read_conversations(ROOT / "pipelines" / "datasets" / "prompts.jsonl", "user")
        asked = [Prompt(one.id, engine.render(one.chat)) for one in conversations]
        held_out, prompts = asked[:HELD_OUT], asked[HELD_OUT:]
        runs: dict[str, Run] = {}
        for seed in range(1, SEEDS + 1):
            print(f"seed {seed}, KL coefficient {with_penalty.kl_coefficient}")
            runs[f"seed {seed}"] = run(folder, prompts, held_out, with_penalty, seed)
        print("without the penalty")
        runs["without KL"] = run(folder, prompts, held_out, without, 1)
    plot(runs)
    print(f"{'held-out':<14}{'reward (sd)':>12}{'KL (nats)':>11}{'new words':>11}{'surprise':>10}  an answer")
    start = next(iter(runs.values())).before
    for name, one in [("start", start), *((name, each.after) for name, each in runs.items())]:
        print(
            f"{name:<14}{one.reward:>+12.2f}{one.kl:>11.2f}{one.new_words:>11.0%}{one.surprise:>10.2f}"
            f"  {' '.join(one.answers[0].split())[:70]}"
        )
    seeds = {name: one for name, one in runs.items() if name.startswith("seed")}
    figures = {
        "reward_gain_sd": round(min(one.after.reward - one.before.reward for one in seeds.values()), 3),
        "kl": round(max(one.after.kl for one in seeds.values()), 3),
        "kl_bound": KL_BOUND,
        "seeds": {
            name: {"reward_gain_sd": round(one.after.reward - one.before.reward, 3), "kl": round(one.after.kl, 3)}
            for name, one in seeds.items()
        },
        "new_words_start": round(start.new_words, 3),
        "new_words_with_kl": round(min(one.after.new_words for one in seeds.values()), 3),
        "new_words_without_kl": round(runs["without KL"].after.new_words, 3),
        "reward_gain_sd_without_kl": round(runs["without KL"].after.reward - start.reward, 3),
        "plot": str(PLOT.relative_to(ROOT)),
    }
    print(json.dumps({"name": "ppo_learns", "figures": figures}))


if __name__ == "__main__":
    main()

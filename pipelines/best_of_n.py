"""Aligns the SFT policy by rejection sampling: it is fine-tuned on the best of its own answers by the reward model.

In: artifacts/sft, artifacts/reward_model, the alignment and held-out prompts. Out: artifacts/best_of_n, a Hugging Face
folder, and the held-out reward before and after. Source: Touvron et al. 2023 (arXiv 2307.09288), section 3.2.3.
"""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipelines.core import artifacts
from pipelines.core.jsonl import Row, write_rows
from pipelines.core.sections.alignment import BestOfN
from pipelines.core.stage import open_stage
from pipelines.model.checkpoints import load_model, save_model
from pipelines.model.engine import Sampling, TransformersEngine
from pipelines.model.rendering import Rendered
from pipelines.model.rewards import RewardScorer
from pipelines.rlhf.episodes import response_tokens
from pipelines.rlhf.held_out import HeldOutReward, Scorer
from pipelines.rlhf.prompts import Prompt, read_prompts, samplings_of
from pipelines.training.checkpointing import clear
from pipelines.training.seeding import seed_everything
from pipelines.training.supervised import fine_tune

TEMPERATURE = 1.0  # of the answers that are compared before and after


class Best(NamedTuple):
    """The answer to a prompt that has the highest reward of those drawn, and how far it is above their mean."""

    prompt: Prompt
    answer: list[int]  # token ids, with the end token if the answer ended by itself
    reward: float
    margin: float


def best_answers(
    engine: TransformersEngine, scorer: Scorer, prompts: Sequence[Prompt], params: BestOfN, seed: int
) -> list[Best]:
    """`params.completions` answers to each prompt are drawn, and the best one kept; of equals the first."""
    asked = [prompt for prompt in prompts for _ in range(params.completions)]
    samplings = [
        Sampling(params.max_new_tokens, params.temperature, params.top_p, sampling.seed)
        for sampling in samplings_of(asked, params.max_new_tokens, params.temperature, seed, step=1)
    ]
    end_id = engine.tokenizer.eos_token_id
    drawn = engine.generate([prompt.ids for prompt in asked], samplings)
    answers = [response_tokens(generation, end_id) for generation in drawn]
    rewards = scorer.score([[*prompt.ids, *answer] for prompt, answer in zip(asked, answers, strict=True)])
    found = []
    for number, prompt in enumerate(prompts):
        group = range(number * params.completions, (number + 1) * params.completions)
        place = max(group, key=lambda row: rewards[row])
        mean = statistics.mean(rewards[row] for row in group)
        found.append(Best(prompt, answers[place], rewards[place], rewards[place] - mean))
    return found


def demonstrations(best: Sequence[Best], max_tokens: int) -> list[Rendered]:
    """The best answers as conversations to learn from, token for token as they were drawn."""
    rendered = [
        Rendered([*one.prompt.ids, *one.answer], [0] * len(one.prompt.ids) + [1] * len(one.answer)) for one in best
    ]
    return [Rendered(ids[:max_tokens], mask[:max_tokens]) for ids, mask in rendered if any(mask[:max_tokens])]


def sample_rows(best: Sequence[Best], engine: TransformersEngine) -> list[Row]:
    """The best answers as text."""
    return [
        {
            "prompt": engine.tokenizer.decode(one.prompt.ids),
            "response": engine.tokenizer.decode(one.answer, skip_special_tokens=True),
            "reward": round(one.reward, 4),
            "margin": round(one.margin, 4),
        }
        for one in best
    ]


def main() -> None:
    with open_stage("best_of_n") as stage:
        params, seed = stage.params.best_of_n, stage.params.seed
        seed_everything(seed)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        tokenizer = AutoTokenizer.from_pretrained(artifacts.SFT)
        sampler = TransformersEngine.load(artifacts.SFT, params.dtype, params.batch_size)
        scorer = RewardScorer.load(artifacts.REWARD_MODEL, params.dtype)
        scorer.require_tokenizer(tokenizer)
        best = best_answers(sampler, scorer, read_prompts(artifacts.PROMPTS_ALIGNMENT, sampler), params, seed)
        asked = read_prompts(artifacts.PROMPTS_HELD_OUT, sampler)
        held_out = HeldOutReward(sampler, scorer, asked, params.max_new_tokens, TEMPERATURE, seed)
        policy = AutoModelForCausalLM.from_pretrained(artifacts.SFT, dtype=torch.float32).to(device)
        inputs = [artifacts.SFT, artifacts.REWARD_MODEL, artifacts.PROMPTS_ALIGNMENT]
        fine_tune(stage, params, policy, tokenizer, demonstrations(best, params.max_tokens), inputs)
        sampler.model = policy.eval()
        ref_policy = load_model(artifacts.SFT, params.dtype).to(device).eval()
        figures = held_out.after(ref_policy, params.batch_conversations)
        save_model(policy, tokenizer, stage.out)
        write_rows(stage.out / "samples.jsonl", sample_rows(best, sampler))
        stage.tracker.log_artifact(stage.out / "samples.jsonl")
        stage.write_metrics(figures | {"chosen_margin": statistics.mean(one.margin for one in best)})
        clear(stage)


if __name__ == "__main__":
    main()

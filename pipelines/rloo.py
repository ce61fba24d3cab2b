"""Aligns the SFT policy against the reward model by TRL's RLOO: `ppo` without a value model.

In: artifacts/sft, artifacts/reward_model, the alignment and held-out prompts. Out: artifacts/rloo, a Hugging Face
folder, and the held-out reward before and after. Source: Ahmadian et al. 2024 (arXiv 2402.14740).
"""

from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import RLOOConfig, RLOOTrainer

from pipelines.core import artifacts
from pipelines.core.stage import Stage, open_stage
from pipelines.model.attention import suit_device
from pipelines.model.checkpoints import load_model, save_model
from pipelines.model.engine import TransformersEngine
from pipelines.model.rewards import RewardScorer
from pipelines.rlhf.groups import EngineRollouts, prompt_rows, rewards_by
from pipelines.rlhf.held_out import HeldOutReward, Scorer
from pipelines.rlhf.prompts import read_prompts
from pipelines.training.checkpointing import clear
from pipelines.training.optimizer import MasterAdamW
from pipelines.training.seeding import seed_everything
from pipelines.training.trainers import arguments_of, run_trainer


class Trainer(EngineRollouts, RLOOTrainer):  # type: ignore[misc]
    """TRL's RLOO with this project's rollouts."""

    def _generate_single_turn(self, prompt_ids: list[list[int]], *_: Any) -> list[list[int]]:
        return self.draw(prompt_ids)


def make_trainer(stage: Stage, engine: TransformersEngine, scorer: Scorer) -> Trainer:
    """The trainer on the engine's own model."""
    params = stage.params.rloo
    arguments = RLOOConfig(
        **arguments_of(stage, params.episodes_per_step, params.learning_rate, epochs=1.0),
        max_steps=params.steps,
        num_generations=params.responses_per_prompt,
        max_completion_length=params.max_new_tokens,
        temperature=params.temperature,
        beta=params.beta,
        max_grad_norm=params.max_grad_norm,
    )
    trainer = Trainer(
        model=engine.model,
        reward_funcs=rewards_by(scorer, engine),
        args=arguments,
        train_dataset=prompt_rows(artifacts.PROMPTS_ALIGNMENT, engine),
        processing_class=engine.tokenizer,
        optimizers=(MasterAdamW(engine.model, params.dtype, params.learning_rate), None),
    )
    trainer.engine = engine
    return trainer


def main() -> None:
    with open_stage("rloo") as stage:
        params = stage.params.rloo
        seed_everything(stage.params.seed)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        policy = suit_device(AutoModelForCausalLM.from_pretrained(artifacts.SFT, dtype=torch.float32).to(device).eval())
        tokenizer = AutoTokenizer.from_pretrained(artifacts.SFT)
        engine = TransformersEngine(policy, tokenizer, params.episodes_per_step)
        scorer = RewardScorer.load(artifacts.REWARD_MODEL, params.dtype)
        scorer.require_tokenizer(tokenizer)
        trainer = make_trainer(stage, engine, scorer)
        held_out = HeldOutReward(
            engine,
            scorer,
            read_prompts(artifacts.PROMPTS_HELD_OUT, engine),
            params.max_new_tokens,
            params.temperature,
            stage.params.seed,
        )
        run_trainer(trainer, stage, [artifacts.SFT, artifacts.REWARD_MODEL, artifacts.PROMPTS_ALIGNMENT])
        policy.eval()
        ref_policy = load_model(artifacts.SFT, params.dtype).to(device).eval()
        figures = held_out.after(ref_policy, params.responses_per_prompt)
        save_model(policy, tokenizer, stage.out)
        stage.write_metrics(figures | {"steps": float(params.steps)})
        clear(stage)


if __name__ == "__main__":
    main()

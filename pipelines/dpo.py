"""Aligns the SFT policy on the preference pairs directly, by TRL's DPO: the alternative to `ppo`.

In: artifacts/sft, the preference pairs, the held-out prompts. Out: artifacts/dpo, a Hugging Face folder, and how far it
moved from the SFT policy. Source: Rafailov et al. 2023 (arXiv 2305.18290).
"""

import random
import statistics

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from pipelines.core import artifacts
from pipelines.core.jsonl import read_rows
from pipelines.core.records import Conversation, Preference
from pipelines.core.stage import Stage, open_stage
from pipelines.model.attention import suit_device
from pipelines.model.checkpoints import load_model, save_model
from pipelines.model.engine import Sampling, TransformersEngine
from pipelines.rlhf.episodes import divergence, roll_out
from pipelines.training.checkpointing import clear
from pipelines.training.optimizer import MasterAdamW
from pipelines.training.seeding import seed_everything
from pipelines.training.trainers import arguments_of, run_trainer


def conversational(preference: Preference) -> dict[str, list[dict[str, str]]]:
    """A pair in TRL's conversational format."""
    return {
        "prompt": preference.prompt.chat,
        "chosen": [{"role": "assistant", "content": preference.chosen}],
        "rejected": [{"role": "assistant", "content": preference.rejected}],
    }


def make_trainer(stage: Stage) -> DPOTrainer:
    """TRL's trainer over the SFT policy and the pairs."""
    params = stage.params.dpo
    pairs, held_out = (
        Dataset.from_list([conversational(Preference.from_row(row)) for row in read_rows(path)])
        for path in (artifacts.PREFERENCES_TRAIN, artifacts.PREFERENCES_HELD_OUT)
    )
    arguments = DPOConfig(
        **arguments_of(stage, params.batch_pairs, params.learning_rate, params.epochs),
        per_device_eval_batch_size=params.batch_pairs,
        beta=params.beta,
        max_length=params.max_tokens,
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    policy = suit_device(AutoModelForCausalLM.from_pretrained(artifacts.SFT, dtype=torch.float32).to(device))
    return DPOTrainer(
        model=policy,
        ref_model=suit_device(load_model(artifacts.SFT, params.dtype).to(device)),
        args=arguments,
        train_dataset=pairs,
        eval_dataset=held_out,
        processing_class=AutoTokenizer.from_pretrained(artifacts.SFT),
        optimizers=(MasterAdamW(policy, params.dtype, params.learning_rate), None),
    )


def distance_from_sft(stage: Stage) -> float:
    """Mean KL (nats per response) of the saved policy's answers to the held-out prompts from the SFT policy."""
    params = stage.params.dpo
    engine = TransformersEngine.load(stage.out, params.dtype, params.batch_pairs)
    ref_policy = load_model(artifacts.SFT, params.dtype).to(engine.device).eval()
    prompts = [engine.render(Conversation.from_row(row).chat) for row in read_rows(artifacts.PROMPTS_HELD_OUT)]
    seeds = random.Random(stage.params.seed)
    samplings = [Sampling(params.max_new_tokens, 1.0, 1.0, seeds.getrandbits(48)) for _ in prompts]
    answers = roll_out(engine, prompts, samplings)
    return statistics.mean(divergence(engine.model, ref_policy, answers, 1.0, params.batch_pairs))


def main() -> None:
    with open_stage("dpo") as stage:
        seed_everything(stage.params.seed)
        trainer = make_trainer(stage)
        run_trainer(trainer, stage, [artifacts.SFT, artifacts.PREFERENCES_TRAIN])
        held_out = trainer.evaluate()
        save_model(trainer.model, trainer.processing_class, stage.out)
        stage.write_metrics(
            {
                "held_out_accuracy": held_out["eval_rewards/accuracies"],
                "held_out_margin": held_out["eval_rewards/margins"],
                "held_out_loss": held_out["eval_loss"],
                "kl_final": distance_from_sft(stage),
                "train_pairs": float(len(trainer.train_dataset)),
            }
        )
        clear(stage)


if __name__ == "__main__":
    main()

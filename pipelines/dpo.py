"""Aligns the SFT policy on the preference pairs directly, by TRL's DPO: the alternative to `ppo`.

In: artifacts/sft, the preference pairs. Out: artifacts/dpo, a Hugging Face folder.
Source: Rafailov et al. 2023 (arXiv 2305.18290).
"""

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from pipelines.core import artifacts
from pipelines.core.jsonl import read_rows
from pipelines.core.records import Preference
from pipelines.core.stage import Stage, open_stage
from pipelines.model.checkpoints import cast_weights, save_model
from pipelines.training.callbacks import TrackerCallback
from pipelines.training.seeding import seed_everything


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
        output_dir=str(artifacts.RUN / "trainer" / stage.name),
        num_train_epochs=params.epochs,
        per_device_train_batch_size=params.batch_pairs,
        per_device_eval_batch_size=params.batch_pairs,
        learning_rate=params.learning_rate,
        beta=params.beta,
        max_length=params.max_tokens,
        bf16=params.dtype == "bfloat16",
        use_cpu=not torch.cuda.is_available(),
        activation_checkpointing=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_steps=1,
        seed=stage.params.seed,
    )
    return DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(artifacts.SFT, dtype=torch.float32),
        args=arguments,
        train_dataset=pairs,
        eval_dataset=held_out,
        processing_class=AutoTokenizer.from_pretrained(artifacts.SFT),
        callbacks=[TrackerCallback(stage.tracker)],
    )


def main() -> None:
    with open_stage("dpo") as stage:
        seed_everything(stage.params.seed)
        trainer = make_trainer(stage)
        trainer.train()
        held_out = trainer.evaluate()
        cast_weights(trainer.model, stage.params.dpo.dtype)
        save_model(trainer.model, trainer.processing_class, stage.out)
        stage.write_metrics(
            {
                "held_out_accuracy": held_out["eval_rewards/accuracies"],
                "held_out_margin": held_out["eval_rewards/margins"],
                "held_out_loss": held_out["eval_loss"],
                "train_pairs": float(len(trainer.train_dataset)),
            }
        )


if __name__ == "__main__":
    main()

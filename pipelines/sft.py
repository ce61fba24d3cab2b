"""Fine-tunes the pretrained model on demonstrations, with the loss on assistant turns only.

In: artifacts/pretrain, the training and held-out demonstrations. Out: artifacts/sft, a Hugging Face folder in the
dtype of its input, and the loss per assistant token on held-out demonstrations before and after.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from pipelines.core import artifacts
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_rows
from pipelines.core.records import Conversation
from pipelines.core.stage import Stage, open_stage
from pipelines.model.checkpoints import cast_weights, save_model
from pipelines.model.logits import logits_at
from pipelines.model.rendering import Rendered, render_conversation
from pipelines.training.callbacks import report_to
from pipelines.training.seeding import seed_everything

IGNORED = -100  # torch's cross_entropy leaves these positions out


def read_rendered(path: Path, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> list[Rendered]:
    """The conversations of `path` as ids and loss masks; longer ones are cut at `max_tokens`."""
    found = []
    for row in read_rows(path):
        ids, assistant = render_conversation(tokenizer, Conversation.from_row(row).chat)
        if any(assistant[:max_tokens]):
            found.append(Rendered(ids[:max_tokens], assistant[:max_tokens]))
    return found


def within_budget(conversations: Sequence[Rendered], max_tokens: int) -> list[Rendered]:
    """The first conversations that together have at most `max_tokens` tokens.

    Raises:
        BadInput: not even one fits.
    """
    chosen: list[Rendered] = []
    used = 0
    for conversation in conversations:
        if used + len(conversation.ids) <= max_tokens:
            chosen.append(conversation)
            used += len(conversation.ids)
    if not chosen:
        raise BadInput(f"no demonstration fits into sft.max_train_tokens {max_tokens}; raise it")
    return chosen


def labels_of(ids: Sequence[int], assistant: Sequence[int]) -> list[int]:
    """`ids` where they are learned, −100 elsewhere: what the loss ignores."""
    return [token if learns else IGNORED for token, learns in zip(ids, assistant, strict=True)]


def learned_loss(model: PreTrainedModel, batch: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
    """Sum of the negative log-likelihoods (nats) of the labels of `batch` (each [B, L]) that are not ignored."""
    learned = torch.nn.functional.pad(batch["labels"][:, 1:] != IGNORED, (0, 1))
    with torch.autocast(model.device.type, dtype, enabled=dtype != torch.float32):
        logits = logits_at(model, batch["input_ids"], batch["attention_mask"], learned)
    targets = batch["labels"][:, 1:][learned[:, :-1]]
    return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")


@torch.no_grad()
def held_out_loss(model: PreTrainedModel, conversations: Sequence[Rendered], dtype: torch.dtype) -> float:
    """Mean negative log-likelihood (nats) of an assistant token."""
    model.eval()
    total, count = 0.0, 0
    for ids, assistant in conversations:
        labels = labels_of(ids, assistant)
        rows = {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels}
        batch = {name: torch.tensor([row], device=model.device) for name, row in rows.items()}
        total += float(learned_loss(model, batch, dtype))
        count += sum(label != IGNORED for label in labels[1:])
    return total / max(1, count)


class CpuSFTTrainer(SFTTrainer):  # type: ignore[misc]
    """TRL's trainer with the loss computed where there is one: TRL's own scores every position, twice the time here."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        assert not return_outputs
        count = (inputs["labels"][:, 1:] != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
        return learned_loss(model, inputs, torch.bfloat16 if self.args.bf16 else torch.float32) / count


def train(stage: Stage, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, data: Sequence[Rendered]) -> None:
    """Run TRL's trainer in place on `model`, whose weights are float32."""
    params = stage.params.sft
    on_gpu = torch.cuda.is_available()
    rows = Dataset.from_list([{"input_ids": ids, "labels": labels_of(ids, assistant)} for ids, assistant in data])
    arguments = SFTConfig(
        output_dir=str(artifacts.RUN / "trainer" / stage.name),
        num_train_epochs=params.epochs,
        per_device_train_batch_size=params.batch_conversations,
        learning_rate=params.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=params.warmup_share,
        max_length=params.max_tokens,
        train_sampling_strategy="group_by_length",
        bf16=params.dtype == "bfloat16",
        use_cpu=not on_gpu,
        activation_checkpointing=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_steps=1,
        logging_nan_inf_filter=False,
        seed=stage.params.seed,
    )
    trainer_class = SFTTrainer if on_gpu else CpuSFTTrainer
    trainer = trainer_class(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer)
    report_to(trainer, stage.tracker)
    trainer.train()


def main() -> None:
    with open_stage("sft") as stage:
        params = stage.params.sft
        seed_everything(stage.params.seed)
        tokenizer = AutoTokenizer.from_pretrained(artifacts.PRETRAIN)
        model = AutoModelForCausalLM.from_pretrained(artifacts.PRETRAIN, dtype=torch.float32)
        stored_dtype = str(AutoConfig.from_pretrained(artifacts.PRETRAIN).dtype).removeprefix("torch.")
        dtype = getattr(torch, params.dtype)
        data = within_budget(read_rendered(artifacts.SFT_TRAIN, tokenizer, params.max_tokens), params.max_train_tokens)
        held_out = read_rendered(artifacts.SFT_HELD_OUT, tokenizer, params.max_tokens)
        before = held_out_loss(model, held_out, dtype)
        train(stage, model, tokenizer, data)
        cast_weights(model, stored_dtype)
        after = held_out_loss(model, held_out, dtype)  # of the weights that are saved
        save_model(model, tokenizer, stage.out)
        stage.write_metrics(
            {
                "held_out_loss": after,
                "held_out_loss_before": before,
                "train_conversations": float(len(data)),
                "train_tokens": float(sum(len(conversation.ids) for conversation in data)),
            }
        )


if __name__ == "__main__":
    main()

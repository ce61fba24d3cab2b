"""Supervised fine-tuning on rendered conversations, with the loss on assistant tokens only."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from pipelines.core.sections.training import Supervised
from pipelines.core.stage import Stage
from pipelines.model.attention import suit_device
from pipelines.model.logits import chosen_logprobs, head_weight
from pipelines.model.rendering import Rendered
from pipelines.training.optimizer import MasterAdamW
from pipelines.training.trainers import LengthGrouped, arguments_of, run_trainer

IGNORED = -100  # torch's cross_entropy leaves these positions out


def labels_of(ids: Sequence[int], assistant: Sequence[int]) -> list[int]:
    """`ids` where they are learned, −100 elsewhere: what the loss ignores."""
    return [token if learns else IGNORED for token, learns in zip(ids, assistant, strict=True)]


def learned_loss(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Tensor:
    """Sum of the negative log-likelihoods (nats) of the labels of `batch` that are not ignored.

    Args:
        batch: `input_ids` and `labels`, [B, L], and either `attention_mask` [B, L], for padded conversations, or
            `position_ids` [1, L], which begin anew with each packed one and keep attention inside it.
    """
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids") if name in batch}
    learned = torch.nn.functional.pad(batch["labels"][:, 1:] != IGNORED, (0, 1))
    hidden = model.base_model(**inputs, use_cache=False).last_hidden_state[learned]
    return -chosen_logprobs(hidden, head_weight(model), batch["labels"][:, 1:][learned[:, :-1]]).sum()


@torch.no_grad()
def held_out_loss(model: PreTrainedModel, conversations: Sequence[Rendered]) -> float:
    """Mean negative log-likelihood (nats) of an assistant token."""
    model.eval()
    total, count = 0.0, 0
    for ids, assistant in conversations:
        labels = labels_of(ids, assistant)
        batch = {
            name: torch.tensor([row], device=model.device) for name, row in (("input_ids", ids), ("labels", labels))
        }
        total += float(learned_loss(model, batch))
        count += sum(label != IGNORED for label in labels[1:])
    return total / max(1, count)


class AssistantTrainer(SFTTrainer):  # type: ignore[misc]
    """TRL's trainer with the loss computed where there is one: TRL's own scores every position, twice the time."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        assert not return_outputs
        count = (inputs["labels"][:, 1:] != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
        return learned_loss(model, inputs) / count

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGrouped:
        lengths = [len(ids) for ids in self.train_dataset["input_ids"]]
        return LengthGrouped(lengths, self.args.train_batch_size, self.args.seed)


def fine_tune(
    stage: Stage,
    params: Supervised,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: Sequence[Rendered],
    inputs: Iterable[Path],
) -> None:
    """Run TRL's trainer in place on `model`, whose weights come in float32 and leave in `params.dtype`.

    Args:
        inputs: what model and data were read from; a checkpoint of others is refused.
    """
    rows = Dataset.from_list([{"input_ids": ids, "labels": labels_of(ids, assistant)} for ids, assistant in data])
    arguments = SFTConfig(
        **arguments_of(stage, params.batch_conversations, params.learning_rate, params.epochs),
        lr_scheduler_type="cosine",
        warmup_steps=params.warmup_share,
        max_length=params.max_tokens,
        neftune_noise_alpha=params.neftune_noise,
    )
    suit_device(model)
    optimizer = MasterAdamW(model, params.dtype, params.learning_rate)
    trainer = AssistantTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        processing_class=tokenizer,
        data_collator=DataCollatorForLanguageModeling(tokenizer.pad_token_id, padding_free=params.packing),
        optimizers=(optimizer, None),
    )
    run_trainer(trainer, stage, inputs)

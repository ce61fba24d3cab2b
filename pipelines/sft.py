"""Fine-tunes the pretrained model on demonstrations, with the loss on assistant turns only.

In: artifacts/pretrain, the training and held-out demonstrations. Out: artifacts/sft, a Hugging Face folder in the
dtype of its input, and the loss per assistant token on held-out demonstrations before and after.
"""

from collections.abc import Sequence

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
)

from pipelines.core import artifacts
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_rows
from pipelines.core.sections.training import Sft
from pipelines.core.stage import open_stage
from pipelines.model.adapters import merged, with_adapters
from pipelines.model.checkpoints import cast_weights, save_model
from pipelines.model.rendering import Rendered, rendered_conversations
from pipelines.training.checkpointing import clear
from pipelines.training.seeding import seed_everything
from pipelines.training.supervised import fine_tune, held_out_loss


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


def load_policy(params: Sft) -> PreTrainedModel:
    """The pretrained model in float32, or in four bits under adapters.

    Raises:
        BadInput: four bits without a GPU.
    """
    if not params.four_bit_base:
        return AutoModelForCausalLM.from_pretrained(artifacts.PRETRAIN, dtype=torch.float32)
    if not params.lora or not torch.cuda.is_available():
        raise BadInput("sft.four_bit_base needs sft.lora and a CUDA GPU with the package bitsandbytes; set it to false")
    four_bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    return AutoModelForCausalLM.from_pretrained(artifacts.PRETRAIN, quantization_config=four_bits)


def main() -> None:
    with open_stage("sft") as stage:
        params = stage.params.sft
        seed_everything(stage.params.seed)
        tokenizer = AutoTokenizer.from_pretrained(artifacts.PRETRAIN)
        model = load_policy(params).to("cuda" if torch.cuda.is_available() else "cpu")
        stored_dtype = str(AutoConfig.from_pretrained(artifacts.PRETRAIN).dtype).removeprefix("torch.")
        data, held_out = (
            list(rendered_conversations(read_rows(path), tokenizer, params.max_tokens))
            for path in (artifacts.SFT_TRAIN, artifacts.SFT_HELD_OUT)
        )
        data = within_budget(data, params.max_train_tokens)
        before = held_out_loss(model, held_out)
        adapters = with_adapters(model, params.lora) if params.lora else None
        fine_tune(stage, params, model, tokenizer, data, [artifacts.PRETRAIN, artifacts.SFT_TRAIN])
        if adapters:
            model = merged(adapters, stored_dtype)
        cast_weights(model, stored_dtype)
        after = held_out_loss(model, held_out)  # of the weights that are saved
        save_model(model, tokenizer, stage.out)
        stage.write_metrics(
            {
                "held_out_loss": after,
                "held_out_loss_before": before,
                "train_conversations": float(len(data)),
                "train_tokens": float(sum(len(conversation.ids) for conversation in data)),
            }
        )
        clear(stage)


if __name__ == "__main__":
    main()

"""Low-rank adapters: put into a model, and merged into its weights once they are trained."""

from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from pipelines.core.sections.training import Lora
from pipelines.model.checkpoints import cast_weights


def with_adapters(model: PreTrainedModel, lora: Lora) -> PeftModel:
    """Put adapters into every linear layer of `model` but the head; they alone are trained from here on.

    Source: Hu et al. 2021 (arXiv 2106.09685). `model` itself goes on working, with the adapters in it.
    """
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    return get_peft_model(model, config)


def merged(adapters: PeftModel, dtype: str) -> PreTrainedModel:
    """The model with its adapters added to the weights, in `dtype`; the sum is made in float32."""
    cast_weights(adapters, "float32")
    model: PreTrainedModel = adapters.merge_and_unload()
    cast_weights(model, dtype)
    return model

"""Pretraining and supervised fine-tuning."""

from typing import Annotated, Literal

from pydantic import Field

from pipelines.core.sections.base import NonNegative, Positive, PositiveFloat, Section, Share


class Architecture(Section):
    """The decoder that `pretrain` builds when base_model is scratch."""

    family: Literal["gpt2", "llama", "qwen3"]
    layers: Positive
    hidden: Positive
    heads: Positive
    kv_heads: Positive
    context: Positive  # tokens


class Distributed(Section):
    """How many processes train, and what DeepSpeed's ZeRO splits between them."""

    processes: Positive | None  # of each machine; null: one for each GPU, one on a CPU
    hostfile: str | None  # of several machines, as DeepSpeed reads it: "name slots=8" a line
    zero_stage: Annotated[int, Field(ge=0, le=3)]  # 1: the optimizer's state, 2: gradients too, 3: weights too
    offload: Literal["none", "optimizer", "weights"]  # to the machine's memory; weights: both, needs zero_stage 3


class Pretrain(Section):
    architecture: Architecture
    steps: NonNegative  # 0 passes a base model through
    batch_sequences: Positive  # of one optimizer step, over all processes
    accumulate: Positive  # micro-batches that each process splits its part of a step into
    sequence_tokens: Positive
    learning_rate: PositiveFloat  # at its peak
    schedule: Literal["cosine", "wsd"]  # wsd: warm-up, stable, decay
    warmup_share: Share
    decay_share: Share  # of the steps, with wsd
    weight_decay: Annotated[float, Field(ge=0)]
    max_grad_norm: PositiveFloat
    dtype: Literal["float32", "bfloat16"]  # of weights and products; the optimizer keeps float32 weights either way
    compile: bool | Literal["auto"]  # auto: where there is a compiler and the run is long enough to gain from it
    distributed: Distributed


class PullDemonstrations(Section):
    round: str | None  # its name in labeling.push_demonstrations; null: people wrote none, and no server is asked


class PrepareSft(Section):
    demonstrations: str  # JSONL of Conversation rows
    prompts: str  # JSONL of Conversation rows that end with a user turn
    max_demonstrations: Annotated[int, Field(gt=0, lt=100_000)]
    written_share: Share  # of max_demonstrations, at most, are accepted answers of pull_demonstrations
    held_out_share: Share
    labeling_prompts: Positive
    alignment_prompts: Positive
    held_out_prompts: Positive


class ValidateSft(Section):
    min_conversations: Positive
    max_tokens: Positive  # of one conversation


class Lora(Section):
    """Adapters of low rank on every linear layer but the head. Source: Hu et al. 2021 (arXiv 2106.09685)."""

    rank: Positive
    alpha: Positive


class Supervised(Section):
    """Fine-tuning on conversations by the loss of their assistant tokens."""

    epochs: PositiveFloat
    batch_conversations: Positive
    max_tokens: Positive
    learning_rate: PositiveFloat
    warmup_share: Share
    packing: bool  # a batch as one sequence without padding, attention inside each conversation; for long-tailed data
    neftune_noise: PositiveFloat | None  # alpha of Jain et al. 2023 (arXiv 2310.05914)
    dtype: Literal["float32", "bfloat16"]


class Sft(Supervised):
    max_train_tokens: Positive
    lora: Lora | None
    four_bit_base: bool  # QLoRA: the frozen weights under the adapters in four bits; needs a GPU


# auto is what measures fastest: `pipelines/model/engine_choice.py`
EngineName = Literal["auto", "transformers", "openvino", "vllm"]

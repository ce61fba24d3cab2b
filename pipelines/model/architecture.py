"""The decoder that is trained from scratch: gpt2, llama or qwen3 in the sizes that the parameters give."""

from typing import Protocol

from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedConfig, PreTrainedModel, Qwen3Config

from pipelines.core.errors import BadInput

ROPE_THETA = 10_000.0


class Sizes(Protocol):
    """What `pretrain.architecture` holds."""

    @property
    def family(self) -> str: ...
    @property
    def layers(self) -> int: ...
    @property
    def hidden(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def kv_heads(self) -> int: ...
    @property
    def context(self) -> int: ...


def feed_forward(hidden: int) -> int:
    """The inner width of a gated feed-forward block: 8/3 of `hidden`, up to a multiple of 64, as LLaMA has it."""
    return -(-hidden * 8 // 3 // 64) * 64


def model_config(sizes: Sizes, vocabulary: int) -> PreTrainedConfig:
    """The transformers configuration of `sizes`; embeddings are tied, as small models want it.

    Raises:
        BadInput: the sizes don't fit each other.
    """
    if sizes.hidden % sizes.heads or (sizes.hidden // sizes.heads) % 2:
        raise BadInput(
            f"pretrain.architecture: hidden {sizes.hidden} over {sizes.heads} heads must be a whole, even number"
        )
    if sizes.heads % sizes.kv_heads:
        raise BadInput(f"pretrain.architecture: {sizes.heads} heads can't share {sizes.kv_heads} kv_heads evenly")
    if sizes.family == "gpt2":
        if sizes.kv_heads != sizes.heads:
            raise BadInput(f"pretrain.architecture: gpt2 has no shared heads, set kv_heads to {sizes.heads}")
        return GPT2Config(
            vocab_size=vocabulary,
            n_positions=sizes.context,
            n_embd=sizes.hidden,
            n_layer=sizes.layers,
            n_head=sizes.heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
    family = LlamaConfig if sizes.family == "llama" else Qwen3Config
    return family(
        vocab_size=vocabulary,
        hidden_size=sizes.hidden,
        intermediate_size=feed_forward(sizes.hidden),
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.kv_heads,
        head_dim=sizes.hidden // sizes.heads,
        max_position_embeddings=sizes.context,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        tie_word_embeddings=True,
    )


def build(sizes: Sizes, vocabulary: int) -> PreTrainedModel:
    """A model with random weights from torch's global generator: seed it first."""
    return AutoModelForCausalLM.from_config(model_config(sizes, vocabulary))

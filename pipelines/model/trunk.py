"""A model's trunk over a batch of sequences: no padding is computed, and what all rows begin with is computed once.

Chats begin alike: with the template's head, with a system message, with one prompt that is answered several times. All
tokens of the batch go through the layers as one row, which keeps matrix products wide; only attention sees rows.

Shapes: B rows of up to L tokens; N tokens of the batch, a shared one counted once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from pipelines.model.attention import BLOCK_TOKENS, blocked_attention

NAME = "ragged"
PLAIN = {
    "gpt2",
    "llama",
    "qwen2",
    "qwen3",
}  # model types whose layers may attend to all that came before, and only that


class Layout(NamedTuple):
    """Which of a batch's B × L places hold tokens."""

    rows: int
    shared: int  # tokens that all rows begin with
    width: int  # L − shared
    rests: Tensor  # [N − shared] places in [B × width] of the tokens after these
    places: Tensor  # [N] places in [B × L] of all tokens

    @classmethod
    def of(cls, ids: Tensor, attention: Tensor) -> "Layout":
        """The layout of ids [B, L], padded where attention [B, L] is 0; each row keeps a token of its own."""
        alike = (ids == ids[:1]).all(dim=0).long().cumprod(dim=0).sum()
        shared = min(int(alike), int(attention.sum(dim=1).min()) - 1)
        kept = attention.bool().clone()
        kept[1:, :shared] = False
        places = kept.flatten().nonzero()[:, 0]  # the first row's come first, and of these the shared ones
        rests = attention[:, shared:].flatten().nonzero()[:, 0]
        return cls(len(ids), shared, ids.shape[1] - shared, rests, places)

    def flat(self, batch: Tensor) -> Tensor:
        """The tokens [N, …] of `batch` [B, L, …]."""
        return batch.flatten(0, 1).index_select(0, self.places)

    def padded(self, tokens: Tensor) -> Tensor:
        """`tokens` [N, …] as a batch [B, L, …] with zeros for padding."""
        beginning, rest = tokens.split([self.shared, len(tokens) - self.shared])
        room = rest.new_zeros(self.rows * self.width, *rest.shape[1:])
        rows = room.index_copy(0, self.rests, rest).unflatten(0, (self.rows, self.width))
        return torch.cat([beginning.expand(self.rows, *beginning.shape), rows], dim=1)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    layout: Layout,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside each row; query [1, heads, N, width], key and value [1, kv_heads, N, width]."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    query, key, value = (layout.padded(one[0].transpose(0, 1)).transpose(1, 2) for one in (query, key, value))
    if query.device.type == "cpu":
        found = blocked_attention(query, key, value, scale, BLOCK_TOKENS)
    else:
        found = functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale, enable_gqa=True)
    return layout.flat(found.transpose(1, 2))[None], None


@contextmanager
def _attending_by_row(model: PreTrainedModel) -> Iterator[None]:
    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _only_looks_back(model: PreTrainedModel) -> bool:
    """Whether attention in `model` is to all that came before in a row, and nothing else."""
    config = model.config
    sliding = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    dropout = getattr(config, "attention_dropout", 0.0) or getattr(config, "attn_pdrop", 0.0)
    return config.model_type in PLAIN and not sliding and not (model.training and dropout)


def hidden_states(model: PreTrainedModel, ids: Tensor, attention: Tensor) -> Tensor:
    """The last hidden states [B, L, H] of sequences padded on the right, differentiable; ids and attention are [B, L].

    The same as the model's own pass over the padded batch, up to rounding, with zeros at padding; it is that pass for
    models that do more than plain causal attention, such as in a sliding window or with dropout.
    """
    trunk = model.base_model
    if not _only_looks_back(model):
        hidden: Tensor = trunk(input_ids=ids, attention_mask=attention, use_cache=False).last_hidden_state
        return hidden
    layout = Layout.of(ids, attention)
    positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    with _attending_by_row(model):
        states = trunk(
            input_ids=layout.flat(ids)[None], position_ids=layout.flat(positions)[None], use_cache=False, layout=layout
        ).last_hidden_state
    return layout.padded(states[0])

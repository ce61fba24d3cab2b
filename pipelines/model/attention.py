"""How a model attends here while it learns, and where it is read without generating.

PyTorch's fused attention works on tiles too small for a CPU's matrix instructions: over sequences of some hundred
tokens, plain products took 0.7 of the time of the whole pass. They keep the scores of a layer, so a GPU, which trains
on longer ones, keeps the fused kernel.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

QUERY_BLOCKS, GROUPED = "query_blocks", "grouped"  # as transformers knows them
BLOCK_TOKENS = 256  # measured over 64 to 512 at 512 tokens; half of the masked scores are never computed


def blocked_attention(query: Tensor, key: Tensor, value: Tensor, scale: float, block: int) -> Tensor:
    """Causal softmax(query · keyᵀ × scale) · value [batch, heads, length, width]; softmax in float32.

    `query` [batch, heads, length, width], `key` and `value` [batch, kv_heads, length, width]; the query heads that
    share one of these are rows of one product.
    """
    batch, heads, length, width = query.shape
    kv_heads = key.shape[1]
    shared = heads // kv_heads
    query = query.reshape(batch * kv_heads, shared, length, width)
    key = key.reshape(batch * kv_heads, length, width)
    value = value.reshape(batch * kv_heads, length, width)
    parts = []
    for start in range(0, length, block):
        end = min(length, start + block)
        rows = query[:, :, start:end].reshape(batch * kv_heads, shared * (end - start), width)
        scores = torch.bmm(rows, key[:, :end].transpose(1, 2)).float() * scale
        position = torch.arange(start, end, device=query.device).repeat(shared)
        future = position[:, None] < torch.arange(end, device=query.device)[None]
        shares = scores.masked_fill(future, float("-inf")).softmax(-1).to(value.dtype)
        part = torch.bmm(shares, value[:, :end])
        parts.append(part.view(batch * kv_heads, shared, end - start, width))
    return torch.cat(parts, 2).view(batch, heads, length, width)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    assert attention_mask is None and dropout == 0.0, "windows of packed text have neither padding nor dropout"
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return blocked_attention(query, key, value, scale, BLOCK_TOKENS).transpose(1, 2).contiguous(), None


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """The blocks know what is causal."""


def use_query_blocks(model: PreTrainedModel) -> None:
    """Let `model` attend by blocks of queries, in windows without padding, until it is set otherwise."""
    AttentionInterface.register(QUERY_BLOCKS, _attend)
    AttentionMaskInterface.register(QUERY_BLOCKS, _no_mask)
    model.set_attn_implementation(QUERY_BLOCKS)


def grouped_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float, dropout: float = 0.0
) -> Tensor:
    """softmax(query · keyᵀ × scale) · value [batch, heads, length, width] where `mask` lets it; softmax in float32.

    `query` [batch, heads, length, width]; `key` and `value` [batch, kv_heads, keys, width], which are not repeated for
    the query heads that share them; `mask` [batch or 1, 1, length, keys], true where a query may look, or added.
    """
    heads, length = query.shape[1:3]
    kv_heads = key.shape[1]
    shared = heads // kv_heads
    rows = (query * scale).unflatten(1, (kv_heads, shared)).flatten(2, 3)
    scores = (rows @ key.transpose(2, 3)).float().unflatten(2, (shared, length))
    mask = mask[:, :, None]
    # A query at padding may look nowhere: any finite number keeps its shares from being none.
    lowest = torch.finfo(scores.dtype).min
    scores = scores.masked_fill(~mask, lowest) if mask.dtype == torch.bool else scores + mask
    shares = scores.softmax(-1).to(value.dtype)
    if dropout:
        shares = nn.functional.dropout(shares, dropout)
    return (shares.flatten(2, 3) @ value).unflatten(2, (shared, length)).flatten(1, 2)


def _attend_grouped(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    found = grouped_attention(query, key, value, attention_mask, scale, dropout)
    return found.transpose(1, 2).contiguous(), None


def suit_device(model: PreTrainedModel) -> PreTrainedModel:
    """On a CPU, let `model` attend by plain products, whatever its mask; returns `model`."""
    if model.device.type == "cpu":
        AttentionInterface.register(GROUPED, _attend_grouped)
        AttentionMaskInterface.register(GROUPED, eager_mask)
        model.set_attn_implementation(GROUPED)
    return model

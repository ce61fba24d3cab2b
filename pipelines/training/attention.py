"""Causal attention for training on a CPU: blocks of queries against the keys up to them, as plain products.

PyTorch's fused attention works on tiles too small for a CPU's matrix instructions; compiled, products of whole blocks
with the softmax between them took well under half of its time. Scores of a layer are kept for backward, so this is for
the few thousand tokens that a CPU trains on. A GPU has the fused kernel, which keeps none.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

NAME = "query_blocks"
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
    """Let `model` attend this way, until `model.set_attn_implementation` says otherwise."""
    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, _no_mask)
    model.set_attn_implementation(NAME)

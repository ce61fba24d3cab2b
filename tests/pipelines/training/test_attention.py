"""Attention in blocks of queries: the numbers and gradients of PyTorch's own, for shared heads and ragged lengths."""

import pytest
import torch
from torch.nn import functional

from pipelines.core.config import Architecture
from pipelines.model.architecture import build
from pipelines.training.attention import blocked_attention, use_query_blocks


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize(("length", "block"), [(16, 16), (16, 4), (13, 5), (3, 8)])
def test_it_equals_full_attention(kv_heads: int, length: int, block: int) -> None:
    draw = torch.Generator().manual_seed(0)
    sizes = (4, kv_heads, kv_heads)
    tensors = [torch.randn(2, heads, length, 8, generator=draw, dtype=torch.float64) for heads in sizes]
    ours, reference = ([tensor.clone().requires_grad_() for tensor in tensors] for _ in range(2))
    out = blocked_attention(*ours, 0.3, block)
    expected = functional.scaled_dot_product_attention(*reference, is_causal=True, scale=0.3, enable_gqa=True)
    assert torch.allclose(out, expected, atol=1e-6)
    weights = torch.randn(out.shape, generator=draw, dtype=torch.float64)
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    for mine, theirs in zip(ours, reference, strict=True):
        assert mine.grad is not None and theirs.grad is not None
        assert torch.allclose(mine.grad, theirs.grad, atol=1e-6)


@pytest.mark.parametrize(("family", "kv_heads"), [("gpt2", 4), ("llama", 2), ("qwen3", 2)])
def test_every_family_answers_the_same_with_it(family: str, kv_heads: int) -> None:
    torch.manual_seed(0)
    sizes = Architecture(family=family, layers=2, hidden=32, heads=4, kv_heads=kv_heads, context=64)  # type: ignore[arg-type]
    model = build(sizes, 300)
    ids = torch.randint(0, 300, (2, 40))
    with torch.no_grad():
        before = model(input_ids=ids, use_cache=False).logits
        use_query_blocks(model)
        assert torch.allclose(model(input_ids=ids, use_cache=False).logits, before, atol=1e-5)

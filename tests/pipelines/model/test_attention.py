"""Attention by plain products: the numbers and gradients of PyTorch's own, for shared heads and every mask."""

import pytest
import torch
from torch.nn import functional

from pipelines.core.sections.training import Architecture
from pipelines.model.architecture import build
from pipelines.model.attention import blocked_attention, grouped_attention, suit_device, use_query_blocks


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


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("queries", [1, 6])
def test_grouped_attention_takes_masks_of_both_kinds(kv_heads: int, queries: int) -> None:
    draw = torch.Generator().manual_seed(0)
    query = torch.randn(2, 4, queries, 8, generator=draw)
    key, value = (torch.randn(2, kv_heads, 6, 8, generator=draw) for _ in range(2))
    mask = torch.ones(6, 6, dtype=torch.bool).tril()[-queries:].repeat(2, 1, 1, 1)
    mask[1, ..., :2] = False  # padding on the left, whose own queries look nowhere
    expected = functional.scaled_dot_product_attention(query, key, value, mask, scale=0.3, enable_gqa=True)
    added = torch.zeros_like(mask, dtype=torch.float32).masked_fill(~mask, torch.finfo(torch.float32).min)
    looking = mask.any(dim=-1)[:, :, :, None].expand_as(expected)
    for one in (mask, added):
        found = grouped_attention(query, key, value, one, 0.3)
        assert torch.isfinite(found).all()
        torch.testing.assert_close(found[looking], expected[looking])


@pytest.mark.parametrize(("family", "kv_heads"), [("gpt2", 4), ("llama", 2), ("qwen3", 2)])
def test_every_family_answers_the_same_with_them(family: str, kv_heads: int) -> None:
    torch.manual_seed(0)
    sizes = Architecture(family=family, layers=2, hidden=32, heads=4, kv_heads=kv_heads, context=64)  # type: ignore[arg-type]
    model = build(sizes, 300)
    ids = torch.randint(0, 300, (2, 40))
    with torch.no_grad():
        before = model(input_ids=ids, use_cache=False).logits
        for use in (use_query_blocks, suit_device):
            use(model)
            assert torch.allclose(model(input_ids=ids, use_cache=False).logits, before, atol=1e-5)

"""Cross-entropy from hidden states: the numbers and gradients of the plain loss, in any chunks."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pipelines.training import cross_entropy
from pipelines.training.cross_entropy import chunk_tokens, linear_cross_entropy, loss_into_gradient


def case(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(37, 16, generator=draw).to(dtype).requires_grad_()
    weight = torch.randn(50, 16, generator=draw).to(dtype).requires_grad_()
    return hidden, weight, torch.randint(0, 50, (37,), generator=draw)


def test_a_loss_worked_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)]])
    assert loss_into_gradient(logits, torch.tensor([1]), 2.0).item() == pytest.approx(math.log(4 / 3))
    assert logits[0].tolist() == pytest.approx([0.5, -0.5])  # twice (1/4, 3/4 - 1)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("chunk", [1, 8, 64])
def test_it_equals_the_plain_loss(
    dtype: torch.dtype, tolerance: float, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_entropy, "chunk_tokens", lambda tokens, *_: min(tokens, chunk))
    hidden, weight, targets = case(dtype)
    loss = linear_cross_entropy(hidden, weight, targets, compiled=False)
    (3 * loss).backward()
    exact_hidden, exact_weight = (tensor.detach().double().requires_grad_() for tensor in (hidden, weight))
    exact = functional.cross_entropy(exact_hidden @ exact_weight.t(), targets)
    (3 * exact).backward()
    assert loss.item() == pytest.approx(exact.item(), rel=tolerance)
    for ours, reference in ((hidden, exact_hidden), (weight, exact_weight)):
        assert ours.grad is not None and reference.grad is not None
        assert (ours.grad.double() - reference.grad).norm() < tolerance * reference.grad.norm()
    with torch.no_grad():
        assert linear_cross_entropy(hidden, weight, targets, False).item() == pytest.approx(exact.item(), rel=tolerance)


def test_chunks_keep_to_their_memory() -> None:
    assert chunk_tokens(4096, 32_768, 2, "cpu") == 1024
    assert chunk_tokens(100, 32_768, 2, "cpu") == 100
    assert chunk_tokens(4096, 10**9, 4, "cpu") == 1

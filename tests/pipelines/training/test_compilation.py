"""Compilation: when it is chosen, what is said where it can't be, and that joined products change no number."""

import pytest
import torch
from torch import Tensor, fx, nn

from pipelines.core.errors import BadInput
from pipelines.training import compilation
from pipelines.training.compilation import WORTHWHILE_CPU_FLOPS, join_linears, should_compile


def test_auto_compiles_long_runs_where_there_is_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "has_compiler", lambda device: True)
    assert should_compile("auto", "cpu", WORTHWHILE_CPU_FLOPS)
    assert not should_compile("auto", "cpu", WORTHWHILE_CPU_FLOPS / 2)
    assert should_compile("auto", "cuda", 1.0)
    assert should_compile(True, "cpu", 1.0)
    assert not should_compile(False, "cuda", 1e20)


def test_without_a_compiler_only_true_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation.shutil, "which", lambda name: None)
    assert not should_compile("auto", "cpu", 1e20)
    assert not should_compile(False, "cpu", 1e20)
    with pytest.raises(BadInput, match=r"needs a C\+\+ compiler"):
        should_compile(True, "cpu", 1e20)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(8, 8, bias=False), nn.Linear(8, 4, bias=False)
        self.biased, self.out = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)

    def forward(self, rows: Tensor) -> Tensor:
        return self.out(self.query(rows) * self.key(rows).repeat(1, 2) + self.biased(rows))


def test_products_of_one_input_are_joined_and_stay_the_same() -> None:
    torch.manual_seed(0)
    block, rows, joined = Block(), torch.randn(5, 8), []

    def backend(graph: fx.GraphModule, inputs: list[Tensor]) -> fx.GraphModule:
        joined.append(join_linears(graph))
        return graph

    expected = block(rows)
    expected.sum().backward()
    gradients = [weight.grad.clone() for weight in block.parameters() if weight.grad is not None]
    block.zero_grad()
    out = torch.compile(block, backend=backend)(rows)
    out.sum().backward()
    assert joined == [2]
    assert torch.allclose(out, expected, atol=1e-6)
    for weight, gradient in zip(block.parameters(), gradients, strict=True):
        assert weight.grad is not None
        assert torch.allclose(weight.grad, gradient, atol=1e-6)

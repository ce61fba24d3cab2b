"""The optimizer: torch's own AdamW in float32, and masters that keep what a narrow weight rounds away."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from pipelines.training.optimizer import MasterAdamW, narrow


def layer(dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(8, 4).to(dtype)


def loss_of(model: nn.Module, seed: int = 1) -> Tensor:
    inputs = torch.randn(16, 8, generator=torch.Generator().manual_seed(seed))
    return (model(inputs.to(model.weight.dtype)).float() ** 2).mean()


def test_in_float32_it_is_adamw_with_clipping() -> None:
    ours, reference = layer(), layer()
    optimizer = MasterAdamW(ours, 0.5)
    groups = [{"params": [reference.weight], "weight_decay": 0.5}, {"params": [reference.bias], "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95))
    for seed in range(5):
        optimizer.backward(loss_of(ours, seed))
        norm = optimizer.step(0.01, 0.1, 1)
        loss_of(reference, seed).backward()
        assert norm == pytest.approx(nn.utils.clip_grad_norm_(reference.parameters(), 0.1).item())
        adamw.step()
        adamw.zero_grad()
    assert torch.allclose(ours.weight, reference.weight, atol=1e-6)
    assert torch.allclose(ours.bias, reference.bias, atol=1e-6)


def test_updates_too_small_for_a_narrow_weight_add_up() -> None:
    model = layer()
    optimizer = MasterAdamW(model, 0.0, narrow(model, torch.bfloat16))
    assert model.weight.dtype == torch.bfloat16
    with torch.no_grad():
        for weight, master in zip(optimizer.weights, optimizer.masters, strict=True):
            weight.fill_(1.0)
            master.fill_(1.0)
    for _ in range(20):  # each moves by 2e-4; bfloat16 has no number between 0.996 and 1
        optimizer.backward(loss_of(model))
        optimizer.step(2e-4, 1e9, 1)
    assert (optimizer.masters[0] - 1).abs().min() > 3e-3
    assert (model.weight != 1).all()


def test_masters_start_from_what_the_cast_rounded_away() -> None:
    model, exact = layer(), layer()
    optimizer = MasterAdamW(model, 0.0, narrow(model, torch.bfloat16))
    assert torch.equal(optimizer.masters[0], exact.weight)
    assert not torch.equal(model.weight.float(), exact.weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_goes_on_from_its_state(dtype: torch.dtype) -> None:
    model = layer()
    optimizer = MasterAdamW(model, 0.1, narrow(model, dtype))
    saved: dict[str, object] = {}
    for step in range(6):
        if step == 3:
            saved = copy.deepcopy({"model": model.state_dict(), "optimizer": optimizer.state_dict()})
        optimizer.backward(loss_of(model, step))
        optimizer.step(0.01, 1.0, 1)
    again = layer()
    narrow(again, dtype)
    again.load_state_dict(saved["model"])  # type: ignore[arg-type]
    resumed = MasterAdamW(again, 0.1)
    resumed.load_state_dict(saved["optimizer"])  # type: ignore[arg-type]
    for step in range(3, 6):
        resumed.backward(loss_of(again, step))
        resumed.step(0.01, 1.0, 1)
    assert torch.equal(model.weight, again.weight)
    assert torch.equal(optimizer.masters[0], resumed.masters[0])


def test_a_gradient_that_is_no_number_changes_nothing() -> None:
    model, before = layer(), layer()
    optimizer = MasterAdamW(model, 0.1)
    optimizer.backward(loss_of(model) * math.nan)
    assert math.isnan(optimizer.step(0.01, 1.0, 1))
    assert torch.equal(model.weight, before.weight)

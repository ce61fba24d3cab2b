"""The optimizer: torch's own AdamW in float32, and masters that keep what a narrow weight rounds away."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pipelines.training.optimizer import MasterAdamW


def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(8, 4)


def loss_of(model: nn.Module, seed: int = 1) -> Tensor:
    inputs = torch.randn(16, 8, generator=torch.Generator().manual_seed(seed))
    return (model(inputs.to(model.weight.dtype)).float() ** 2).mean()


def learn(model: nn.Module, optimizer: MasterAdamW, seeds: Sequence[int], rate: float = 0.01) -> None:
    for seed in seeds:
        optimizer.backward(loss_of(model, seed))
        optimizer.update(rate, 1.0)


def test_in_float32_it_is_adamw_with_clipping() -> None:
    ours, reference = layer(), layer()
    optimizer = MasterAdamW(ours, "float32", 0.0, weight_decay=0.5)
    groups = [{"params": [reference.weight], "weight_decay": 0.5}, {"params": [reference.bias], "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=0.01)
    for seed in range(5):
        optimizer.backward(loss_of(ours, seed))
        norm = optimizer.update(0.01, 0.1)
        loss_of(reference, seed).backward()
        assert norm == pytest.approx(nn.utils.clip_grad_norm_(reference.parameters(), 0.1).item())
        adamw.step()
        adamw.zero_grad()
    assert torch.allclose(ours.weight, reference.weight, atol=1e-6)
    assert torch.allclose(ours.bias, reference.bias, atol=1e-6)


def test_gradients_of_several_batches_are_averaged() -> None:
    ours, reference = layer(), layer()
    optimizer = MasterAdamW(ours, "float32", 0.0)
    for seed in range(4):
        optimizer.backward(loss_of(ours, seed))
    norm = optimizer.update(0.01, 1e9, batches=4)
    sum(loss_of(reference, seed) / 4 for seed in range(4)).backward()  # type: ignore[union-attr]
    assert norm == pytest.approx(nn.utils.clip_grad_norm_(reference.parameters(), 1e9).item())


def test_a_trainer_that_only_knows_torch_can_use_it() -> None:
    model = layer()
    optimizer = MasterAdamW(model, "bfloat16", 0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    before = model.weight.clone()
    for _ in range(2):
        loss_of(model).backward()
        optimizer.step()
        schedule.step()
        model.zero_grad()
    assert model.weight.dtype == torch.bfloat16
    assert not torch.equal(model.weight, before)
    assert optimizer.param_groups[0]["lr"] == 0.0025


def test_updates_too_small_for_a_narrow_weight_add_up() -> None:
    model = layer()
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(1.0)
    optimizer = MasterAdamW(model, "bfloat16", 0.0)
    learn(model, optimizer, [1] * 20, rate=2e-4)  # bfloat16 has no number between 0.996 and 1
    assert (optimizer.masters[0] - 1).abs().min() > 3e-3
    assert (model.weight != 1).all()


def test_masters_start_from_what_the_cast_rounds_away() -> None:
    model, exact = layer(), layer()
    optimizer = MasterAdamW(model, "bfloat16", 0.0)
    assert torch.equal(optimizer.masters[0], exact.weight)
    assert not torch.equal(model.weight.float(), exact.weight)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_goes_on_from_its_state_to_the_same_bits(dtype: str, tmp_path: Path) -> None:
    whole = layer()
    optimizer = MasterAdamW(whole, dtype, 0.0, weight_decay=0.1)
    learn(whole, optimizer, range(3))
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    learn(whole, optimizer, range(3, 6))
    again = layer()
    resumed = MasterAdamW(again, dtype, 0.0, weight_decay=0.1)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    learn(again, resumed, range(3, 6))
    assert torch.equal(whole.weight, again.weight)
    assert torch.equal(optimizer.masters[0], resumed.masters[0])


def test_weights_that_are_not_trained_stay_and_are_cast_too() -> None:
    model = nn.Sequential(layer(), layer())
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    optimizer = MasterAdamW(model, "bfloat16", 0.0)
    inputs = torch.randn(4, 8).bfloat16()
    optimizer.backward((model[1](inputs).float() ** 2).mean())
    optimizer.update(0.1, 1.0)
    assert len(optimizer.masters) == 2
    assert torch.equal(model[0].weight, before.bfloat16())


def test_a_gradient_that_is_no_number_changes_nothing() -> None:
    model, before = layer(), layer()
    optimizer = MasterAdamW(model, "float32", 0.0)
    optimizer.backward(loss_of(model) * math.nan)
    assert math.isnan(optimizer.update(0.01, 1.0))
    assert torch.equal(model.weight, before.weight)

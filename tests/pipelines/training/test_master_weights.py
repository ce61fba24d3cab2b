"""Master weights: small updates are not lost, and a saved state goes on to the same bits."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from pipelines.training.master_weights import MasterAdamW
from tests.models import make_policy

IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])


def load(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def learn(model: PreTrainedModel, optimizer: MasterAdamW, steps: int, max_grad_norm: float = 1.0) -> None:
    for _ in range(steps):
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.clipped_step(max_grad_norm)


def loss_of(model: PreTrainedModel) -> float:
    return model(input_ids=IDS, labels=IDS).loss.item()


def test_updates_too_small_for_bfloat16_add_up(tmp_path: Path) -> None:
    folder = make_policy(tmp_path)
    before = loss_of(load(folder).bfloat16())

    plain = load(folder).bfloat16()
    rounded = torch.optim.AdamW(plain.parameters(), lr=2e-5)
    for _ in range(60):
        plain(input_ids=IDS, labels=IDS).loss.backward()
        rounded.step()
        rounded.zero_grad()

    model = load(folder)
    learn(model, MasterAdamW(model, "bfloat16", 2e-5), 60, 1e9)
    assert next(model.parameters()).dtype == torch.bfloat16
    exact = load(folder)
    learn(exact, MasterAdamW(exact, "float32", 2e-5), 60, 1e9)
    gained = before - loss_of(exact)
    assert before - loss_of(model) == pytest.approx(gained, rel=0.35)
    assert before - loss_of(plain) < 0.5 * gained


def test_float32_is_plain_adamw(tmp_path: Path) -> None:
    folder = make_policy(tmp_path)
    ours, theirs = load(folder), load(folder)
    learn(ours, MasterAdamW(ours, "float32", 1e-3), 5)
    adamw = torch.optim.AdamW(theirs.parameters(), lr=1e-3, weight_decay=0.0, fused=True)
    for _ in range(5):
        theirs(input_ids=IDS, labels=IDS).loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_saved_state_goes_on_to_the_same_bits(tmp_path: Path, dtype: str) -> None:
    folder = make_policy(tmp_path)
    whole = load(folder)
    learn(whole, MasterAdamW(whole, dtype, 1e-3), 6)
    first = load(folder)
    optimizer = MasterAdamW(first, dtype, 1e-3)
    learn(first, optimizer, 3)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    second = load(folder)
    optimizer = MasterAdamW(second, dtype, 1e-3)
    optimizer.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    learn(second, optimizer, 3)
    for one, other in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_gradient_that_is_no_number_changes_nothing(tmp_path: Path) -> None:
    model = load(make_policy(tmp_path))
    optimizer = MasterAdamW(model, "float32", 1e-3)
    before = [weight.clone() for weight in model.parameters()]
    (model(input_ids=IDS, labels=IDS).loss * float("nan")).backward()
    with pytest.raises(FloatingPointError, match="nan"):
        optimizer.clipped_step(1.0)
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))

"""Checkpoints: complete or absent, two kept, refused with the differing keys, and nothing lost on a full disk."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from pipelines.core.errors import BadInput
from pipelines.training.checkpointing import Checkpoints, Interval, flat, tensor_bytes

IDENTITY = {"ppo.learning_rate": 1e-5, "seed": 1}


class Usage(NamedTuple):
    free: int


def state(number: float) -> dict[str, object]:
    return {"weights": [torch.full((4,), number)], "name": "x", "nested": {"step": torch.tensor(number)}}


def test_the_last_state_comes_back(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c", IDENTITY, 0.0)
    assert checkpoints.latest() is None
    for step in (1, 2, 10):
        checkpoints.save(step, state(step))
    found = checkpoints.latest()
    assert found is not None and found["step"] == 10
    assert torch.equal(found["weights"][0], torch.full((4,), 10.0))
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["step-00000002.pt", "step-00000010.pt"]


def test_one_that_was_not_finished_does_not_count(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, IDENTITY, 0.0)
    checkpoints.save(1, state(1))
    (tmp_path / "step-00000002.partial").write_bytes(b"half")
    found = checkpoints.latest()
    assert found is not None and found["step"] == 1


def test_another_configuration_is_refused_with_the_keys_that_differ(tmp_path: Path) -> None:
    Checkpoints(tmp_path, IDENTITY, 0.0).save(1, state(1))
    other = Checkpoints(tmp_path, {"ppo.learning_rate": 2e-5, "seed": 1, "ppo.lora.rank": 8}, 0.0)
    with pytest.raises(BadInput) as refused:
        other.latest()
    message = str(refused.value)
    assert "ppo.learning_rate was 1e-05, is 2e-05" in message
    assert "ppo.lora.rank was (absent), is 8" in message
    assert "seed" not in message and str(tmp_path) in message


def test_a_full_disk_keeps_the_last_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path, IDENTITY, 0.0)
    checkpoints.save(1, state(1))
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(free=3))
    with pytest.raises(BadInput, match=r"the last good checkpoint is .*step-00000001\.pt"):
        checkpoints.save(2, state(2))
    monkeypatch.undo()

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(BadInput, match="No space left on device"):
        checkpoints.save(2, state(2))
    monkeypatch.undo()
    found = checkpoints.latest()
    assert found is not None and found["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001.pt"]


def test_sizes_count_every_tensor() -> None:
    assert tensor_bytes(state(1.0)) == 20
    assert tensor_bytes({"a": (torch.zeros(2, dtype=torch.bfloat16), "text", 3)}) == 4


def test_nested_settings_get_dotted_keys() -> None:
    assert flat({"a": 1, "b": {"c": None}}, "ppo") == {"ppo.a": 1, "ppo.b.c": None}


def test_no_interval_is_always_over_and_a_long_one_is_not() -> None:
    assert Interval(0.0).passed()
    assert not Interval(1e6).passed()

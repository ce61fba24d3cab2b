"""Checkpoints of one stage: written every so many seconds, the last two kept, refused by another configuration."""

import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import torch

from pipelines.core import artifacts
from pipelines.core.digests import file_sha256
from pipelines.core.errors import BadInput
from pipelines.core.stage import Stage

COMPLETE = "identity.json"  # written into a checkpoint's folder last, so that it says the checkpoint is complete
KEPT = 2  # the older one is there should the disk be full while the newer is written
SPARE = 1.05  # of the tensors' size: names, shapes, alignment
ABSENT = "(absent)"


def tensor_bytes(state: Any) -> int:
    """The size of all tensors in nested dicts, lists and tuples."""
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, Mapping):
        return sum(map(tensor_bytes, state.values()))
    return sum(map(tensor_bytes, state)) if isinstance(state, list | tuple) else 0


def flat(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Nested settings as one level with dotted keys, as overrides name them."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}.{key}") if isinstance(value, Mapping) else {f"{prefix}.{key}": value}
    return found


def identity_of(stage: Stage, inputs: Iterable[Path]) -> dict[str, Any]:
    """What a checkpoint must share with the run that goes on from it: the stage's parameters, the seed, its inputs.

    Args:
        inputs: files and folders, compared by their bytes.
    """
    files = [file for path in inputs for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
    digests = {str(file): file_sha256(file) for file in files if file.is_file()}
    settings = flat(stage.params.section(stage.name), stage.name) | {"seed": stage.params.seed}
    # What JSON makes of it, so that values that were read back compare equal.
    identity: dict[str, Any] = json.loads(json.dumps(settings | digests))
    return identity


def require_same(saved: Mapping[str, Any], ours: Mapping[str, Any], path: Path) -> None:
    """Compare the identity of a checkpoint with that of this run.

    Raises:
        BadInput: they differ; the message names each key with both values.
    """
    keys = sorted(key for key in {*saved, *ours} if saved.get(key, ABSENT) != ours.get(key, ABSENT))
    if keys:
        differences = "; ".join(f"{key} was {saved.get(key, ABSENT)}, is {ours.get(key, ABSENT)}" for key in keys)
        raise BadInput(
            f"{path} was made with another configuration: {differences}; "
            f"put the values back to go on from it, or remove {path.parent} to begin anew"
        )


def require_space(folder: Path, size: int, kept: str) -> None:
    """Check that `size` bytes fit on the disk of `folder`.

    Raises:
        BadInput: they don't; `kept` says what there still is.
    """
    free = shutil.disk_usage(folder).free
    if free < size:
        raise BadInput(
            f"a checkpoint takes {size / 2**30:.2f} GiB and {folder.resolve()} has {free / 2**30:.2f} GiB left; "
            f"free some space and run the stage again; {kept}"
        )


class Interval:
    """Says when `seconds` have passed since it last said so, or since it was made."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last = time.monotonic()

    def passed(self) -> bool:
        if time.monotonic() - self._last < self._seconds:
            return False
        self._last = time.monotonic()
        return True


class Checkpoints:
    """The checkpoints of one stage in `folder`; a state is nested dicts and lists of tensors, numbers and strings."""

    def __init__(self, folder: Path, identity: Mapping[str, Any], interval_s: float) -> None:
        self.folder = folder
        self.identity = dict(identity)
        self._interval = Interval(interval_s)

    @classmethod
    def of(cls, stage: Stage, inputs: Iterable[Path]) -> Self:
        """The checkpoints of `stage`, which reads `inputs`."""
        return cls(
            artifacts.checkpoints_of(stage.name),
            identity_of(stage, inputs),
            stage.params.resources.checkpoint_interval_s,
        )

    def _saved(self) -> list[Path]:
        """The complete checkpoints, oldest first."""
        found = self.folder.glob("step-*.pt") if self.folder.is_dir() else ()
        return sorted(path for path in found if re.fullmatch(r"step-\d{8}\.pt", path.name))

    def latest(self) -> dict[str, Any] | None:
        """The state that was saved last, with its `step`; None when there is none.

        Raises:
            BadInput: it belongs to another configuration.
        """
        saved = self._saved()
        if not saved:
            return None
        content = torch.load(saved[-1], map_location="cpu", weights_only=True)
        require_same(content["identity"], self.identity, saved[-1])
        print(f"goes on after step {content['state']['step']}, from {saved[-1]}", flush=True)
        state: dict[str, Any] = content["state"]
        return state

    def due(self) -> bool:
        """Whether it is time for the next one."""
        return self._interval.passed()

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write the state after `step` steps; it is there when it is complete, and then the oldest goes.

        Raises:
            BadInput: the disk is full; the checkpoints before are still there.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        saved = self._saved()
        kept = f"the last good checkpoint is {saved[-1]}" if saved else "there is no earlier checkpoint"
        require_space(self.folder, int(tensor_bytes(state) * SPARE), kept)
        path = self.folder / f"step-{step:08d}.pt"
        partial = path.with_suffix(".partial")
        try:
            with partial.open("wb") as out:
                torch.save({"identity": self.identity, "state": {**state, "step": step}}, out)
                out.flush()
                os.fsync(out.fileno())
        except (OSError, RuntimeError) as error:  # torch reports a full disk as either
            partial.unlink(missing_ok=True)
            raise BadInput(f"{path} could not be written: {error}; free some space and run again; {kept}") from error
        partial.replace(path)
        for old in self._saved()[:-KEPT]:
            old.unlink()


class OptimizerCheckpoints:
    """Checkpoints of a loop whose whole state is its optimizer's and the losses so far."""

    def __init__(self, checkpoints: Checkpoints, optimizer: torch.optim.Optimizer) -> None:
        self._checkpoints, self._optimizer = checkpoints, optimizer

    def resume(self) -> tuple[int, list[float]]:
        """The steps that are done and their losses; weights and optimizer are as they were then."""
        state = self._checkpoints.latest()
        if state is None:
            return 0, []
        self._optimizer.load_state_dict(state["optimizer"])
        return state["step"], state["losses"]

    def due(self) -> bool:
        return self._checkpoints.due()

    def save(self, step: int, losses: list[float]) -> None:
        self._checkpoints.save(step, {"optimizer": self._optimizer.state_dict(), "losses": losses})


def clear(stage: Stage) -> None:
    """Remove the checkpoints of `stage`: it has its result."""
    shutil.rmtree(artifacts.checkpoints_of(stage.name), ignore_errors=True)

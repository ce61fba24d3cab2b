"""Training curves: what a trainer logs over its steps, as a file beside its model.

The tracker's server has them too; the file is what DVC versions, so that a stage that comes from the cache still has
its curve. The same training gives the same bytes, also after a kill.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.core import artifacts
from pipelines.core.jsonl import Row, encode, read_rows, write_rows
from pipelines.core.tracking import Tracker

TRAINERS = ("pretrain", "sft", "reward_model", "ppo", "dpo", "grpo", "rloo", "best_of_n")
# What depends on the clock, or counts from the start of the process (`train_loss`, TRL's `num_tokens`).
NOT_KEPT = re.compile(r"per_s|second|runtime|mfu|memory|flo|^train_|^num_tokens$")


class CurveTracker:
    """Logs to `tracker`, and keeps what comes with a step under `.run`, where a killed training finds it again."""

    def __init__(self, tracker: Tracker, stage: str) -> None:
        self._tracker = tracker
        self._path = artifacts.curve_progress_of(stage)
        self.log_params, self.log_artifact, self.set_tags = tracker.log_params, tracker.log_artifact, tracker.set_tags

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        self._tracker.log_metrics(metrics, step)
        kept = {name: value for name, value in metrics.items() if not NOT_KEPT.search(name)}
        if step and kept:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as out:
                out.write(encode({"step": step} | kept) + b"\n")


def _recorded(path: Path) -> Iterator[Row]:
    """The rows in `path`; a line that a kill cut off is passed over."""
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def joined(rows: Iterator[Row]) -> list[Row]:
    """One row a step. Where a step comes before the last one, training went back and what followed is void."""
    found: dict[int, dict[str, Any]] = {}
    last = 0
    for row in rows:
        step = row["step"]
        if step < last:
            found = {known: values for known, values in found.items() if known < step}
        found[step] = found.get(step, {}) | row
        last = step
    return list(found.values())


def write_curve(stage: str) -> None:
    """Put the curve of a finished training into its stage's folder; of several ranks the first does."""
    if stage not in TRAINERS or os.environ.get("RANK", "0") != "0":
        return
    progress = artifacts.curve_progress_of(stage)
    write_rows(artifacts.curve_of(stage), joined(_recorded(progress)))
    progress.unlink(missing_ok=True)


def read_curve(stage: str) -> list[Row]:
    """The curve of `stage`, in steps; empty where nothing was trained."""
    path = artifacts.curve_of(stage)
    return list(read_rows(path)) if path.exists() else []

"""Numbered tasks on datatrove's executors: processes of this machine, Ray, or Slurm.

A task that has ended is marked in its folder and not run again, so that a killed stage goes on where it was.
"""

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from loguru import logger

from pipelines.core.config import Workers

logger.disable("datatrove")  # it tells each task's whole pipeline; what goes wrong is raised anyway
LOOK_S = 10.0  # between two looks at a Slurm job


class _Step(NamedTuple):
    """A task as a datatrove pipeline step."""

    work: Callable[[int], None]

    def __call__(self, _documents: Any, rank: int, _world_size: int) -> Iterable[Any]:
        self.work(rank)
        return ()


def run_tasks(work: Callable[[int], None], tasks: int, place: Path, workers: Workers) -> None:
    """Call `work` with each of 0 … tasks − 1 that is not marked as done in `place`; `work` must be picklable.

    Raises whatever a task raises; the others of this call may have ended by then and stay done.
    """
    from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor, SlurmPipelineExecutor

    common: dict[str, Any] = {"pipeline": [_Step(work)], "tasks": tasks, "logging_dir": str(place.resolve())}
    match workers.executor:
        case "local":
            # The stage's own threads are enough for one worker; more of them would fight over the cores.
            os.environ.setdefault("OMP_NUM_THREADS", "1")
            LocalPipelineExecutor(**common, workers=min(workers.count, tasks)).run()
        case "ray":
            RayPipelineExecutor(**common, workers=workers.count).run()
        case "slurm":
            executor = SlurmPipelineExecutor(
                **common, workers=workers.count, time=workers.slurm_time, partition=workers.slurm_partition
            )
            executor.run()  # submits, and does not wait
            while executor.get_incomplete_ranks(skip_completed=True):
                time.sleep(LOOK_S)

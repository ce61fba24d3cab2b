"""Numbered tasks on datatrove's executors: processes of this machine, Ray, or Slurm.

A task that has ended is marked in its folder and not run again, so that a killed stage goes on where it was. Ray and
Slurm need a file system that all nodes see, and the environment at the same path on each of them.
"""

import itertools
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from loguru import logger

from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_json, write_json
from pipelines.core.sections.serving import Workers

logger.disable("datatrove")  # it tells each task's whole pipeline; what goes wrong is raised anyway
LOOK_S = (0.5, 1.0, 2.0, 4.0, 8.0)  # between looks at a Slurm job; the last again and again
SHOWN_RANKS = 10  # of the tasks that failed, in the error


class _Step(NamedTuple):
    """A task as a datatrove pipeline step; `root` is the stage's working folder, which a node may not start in."""

    work: Callable[[int], None]
    root: Path
    failures: Path

    def __call__(self, _documents: Any, rank: int, _world_size: int) -> Iterable[Any]:
        os.chdir(self.root)
        try:
            self.work(rank)
        except Exception as error:
            row = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
            write_json(self.failures / f"{rank:05d}.json", row | {"bad_input": isinstance(error, BadInput)})
            raise
        return ()


def run_tasks(work: Callable[[int], None], tasks: int, place: Path, workers: Workers) -> None:
    """Call `work` with each of 0 … tasks − 1 that is not marked as done in `place`; `work` must be picklable.

    The other tasks of this call may have ended when one fails, and stay done.

    Raises:
        BadInput: a task raised it, or what the executor needs is not there.
        RuntimeError: tasks failed on Ray or Slurm; names them and the log folder. A local task's own error is raised.
    """
    import multiprocess
    from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor, SlurmPipelineExecutor

    place = place.resolve()
    failures = place / "failures"
    shutil.rmtree(failures, ignore_errors=True)
    step = _Step(work, Path.cwd(), failures)
    common: dict[str, Any] = {"pipeline": [step], "tasks": tasks, "logging_dir": str(place)}
    match workers.executor:
        case "local":
            # The stage's own threads are enough for one worker; more of them would fight over the cores.
            os.environ.setdefault("OMP_NUM_THREADS", "1")
            multiprocess.get_context("forkserver").set_forkserver_preload(_loaded_modules())
            LocalPipelineExecutor(**common, workers=min(workers.count, tasks)).run()
        case "ray":
            _open_ray()
            ray_executor = RayPipelineExecutor(**common, workers=workers.count)
            ray_executor.run()  # tells of failures in its log alone
            _check_all_done(ray_executor.get_incomplete_ranks(), place, "")
        case "slurm":
            slurm_executor = SlurmPipelineExecutor(
                **common,
                workers=workers.count,
                time=workers.slurm_time,
                partition=workers.slurm_partition,
                env_command=f"export PATH={Path(sys.executable).parent}:$PATH",
                # Else the job that adds up statistics stays in the queue for ever when a task fails.
                sbatch_args={"kill-on-invalid-dep": "yes"},
            )
            _run_on_slurm(slurm_executor, place)


def _loaded_modules() -> list[str]:
    """Our modules in use, for the process that workers are forked from: they and what they import load once.

    Without the stage itself, which every worker runs again as its main module.
    """
    stage = getattr(sys.modules["__main__"].__spec__, "name", None)
    return sorted(name for name in sys.modules if name.startswith("pipelines.") and name != stage)


def _open_ray() -> None:
    """Connect to the cluster that RAY_ADDRESS names, or start Ray on this machine until the process ends."""
    if find_spec("ray") is None:
        raise BadInput("resources.workers.executor is ray, and Ray is not installed here: `uv pip install ray`")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if not ray.is_initialized():
        variables = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        ray.init(include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": variables})


def _run_on_slurm(executor: Any, place: Path) -> None:
    """Submit the tasks that are not done and wait for them; a job that a killed stage left is waited for first."""
    if missing := [name for name in ("sbatch", "squeue") if shutil.which(name) is None]:
        raise BadInput(f"resources.workers.executor is slurm, and {' and '.join(missing)} can't be found on PATH")
    submitted = place / "slurm_job"
    if submitted.exists():
        _wait_for_job(submitted.read_text())
    executor.run()
    if executor.job_id == -1:  # datatrove's word for: everything was done before
        return
    submitted.write_text(executor.job_id)
    _wait_for_job(executor.job_id)
    for pause in LOOK_S:  # at the marks: a shared file system may show them late
        if not executor.get_incomplete_ranks():
            return
        time.sleep(pause)
    _check_all_done(executor.get_incomplete_ranks(), place, _job_states(executor.job_id))


def _wait_for_job(job: str) -> None:
    """Return when no task of the array `job` is in the queue; a controller that does not answer is asked again."""
    for pause in itertools.chain(LOOK_S, itertools.repeat(LOOK_S[-1])):
        asked = subprocess.run(
            ["squeue", "--noheader", "--jobs", job, "--format", "%T"], capture_output=True, text=True
        )
        if (asked.returncode == 0 and not asked.stdout.strip()) or "Invalid job id" in asked.stderr:
            return
        time.sleep(pause)


def _job_states(job: str) -> str:
    """How the tasks of a job ended, as Slurm's accounting has it; empty without accounting."""
    if shutil.which("sacct") is None:
        return ""
    words = ["sacct", "--noheader", "--allocations", "--parsable2", "--jobs", job, "--format", "JobID,State,ExitCode"]
    lines = subprocess.run(words, capture_output=True, text=True).stdout.splitlines()
    return ", ".join(line.replace("|", " ") for line in lines if "|COMPLETED|" not in line)


def _check_all_done(incomplete: list[int], place: Path, states: str) -> None:
    """Raise for the tasks that failed, as `BadInput` when one of them said so."""
    if not incomplete:
        return
    shown = ", ".join(map(str, incomplete[:SHOWN_RANKS])) + (" …" if len(incomplete) > SHOWN_RANKS else "")
    failures = [read_json(path) for path in sorted((place / "failures").glob("*.json"))]
    first = f"; the first said: {failures[0]['error']}" if failures else ""
    message = f"{len(incomplete)} tasks failed ({shown}){first}; logs and tracebacks are in {place}"
    if states:
        message += f"; Slurm says: {states}"
    raise (BadInput if any(failure["bad_input"] for failure in failures) else RuntimeError)(message)

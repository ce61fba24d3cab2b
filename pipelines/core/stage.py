"""What every stage and command runs inside: its parameters, its MLflow run, and errors said clearly."""

import importlib.util
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines.core import artifacts, tracking
from pipelines.core.config import Params, load_params
from pipelines.core.curves import CurveTracker, write_curve
from pipelines.core.errors import BadInput, ExitCode
from pipelines.core.jsonl import write_json

# What to lower when memory runs out.
KNOBS = {
    "pretrain": "pretrain.batch_sequences or pretrain.sequence_tokens, or raise pretrain.accumulate",
    "sft": "sft.batch_conversations or sft.max_tokens",
    "sample_completions": "sample_completions.batch_size or sample_completions.max_new_tokens",
    "reward_model": "reward_model.batch_pairs or reward_model.max_tokens",
    "ppo": "ppo.microbatch_episodes, ppo.episodes_per_step or ppo.max_new_tokens",
    "dpo": "dpo.batch_pairs or dpo.max_tokens",
    "grpo": "grpo.episodes_per_step or grpo.max_new_tokens",
    "rloo": "rloo.episodes_per_step or rloo.max_new_tokens",
    "best_of_n": "best_of_n.batch_size or best_of_n.batch_conversations",
    "evaluate": "evaluate.batch_size",
}


@dataclass(frozen=True, slots=True)
class Stage:
    """One execution of one stage: `params` is the whole resolved file, `out` the stage's own folder."""

    name: str
    params: Params
    out: Path
    tracker: tracking.Tracker

    def write_metrics(self, metrics: dict[str, float]) -> None:
        """Write the stage's metrics file, which DVC versions, and log the same numbers to MLflow."""
        write_json(artifacts.metrics_of(self.name), metrics)
        self.tracker.log_metrics(metrics)


def peak_memory_mib() -> float:
    """The most memory that this process has held (MiB). Not ru_maxrss, which begins with the parent's."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024  # type: ignore[index]


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out, of the machine or of a GPU; torch has several ways to say it."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
    )


def _require_own_code() -> None:
    """Fail when Python took the code from outside the workspace: results would not belong to its commit."""
    code = Path(__file__).resolve()
    if not code.is_relative_to(Path.cwd().resolve()):
        raise BadInput(
            f"the code in use is {code}, outside the workspace {Path.cwd()}; set PYTHONPATH to the workspace"
        )
    for package in ("labeling", "evals", "serving"):
        spec = importlib.util.find_spec(package)
        for location in (spec.submodule_search_locations if spec else None) or ():
            if not Path(location).resolve().is_relative_to(Path.cwd().resolve()):
                raise BadInput(f"{package} comes from {location}, outside the workspace {Path.cwd()}; set PYTHONPATH")


@contextmanager
def open_stage(name: str) -> Iterator[Stage]:
    """Open stage `name` in the current workspace; bad input ends the process with exit code 65.

    The message of a `BadInput` goes to stderr and to `.run/failures/<name>.json`, where the DAG finds it
    even when DVC wrapped the exit code.
    """
    failure = artifacts.FAILURES / f"{name}.json"
    failure.unlink(missing_ok=True)
    started = time.monotonic()
    try:
        _require_own_code()
        params = load_params(Path("params.yaml"))
        with tracking.open_run(name) as tracker:
            tracker.log_params(params.section(name))
            try:
                yield Stage(name, params, artifacts.ROOT / name, CurveTracker(tracker, name))
                write_curve(name)
            except (MemoryError, RuntimeError) as error:
                if not ran_out_of_memory(error):
                    raise
                raise BadInput(
                    f"memory ran out at a peak of {peak_memory_mib():.0f} MiB; lower "
                    f"{KNOBS.get(name, 'the sizes in its section of the parameters')} ({error})"
                ) from error
            peak_mib = peak_memory_mib()
            print(f"{name}: {time.monotonic() - started:.1f} s, peak memory {peak_mib:.0f} MiB", flush=True)
            tracker.log_metrics({"stage_seconds": time.monotonic() - started, "peak_memory_mib": peak_mib})
    except BadInput as error:
        write_json(failure, {"stage": name, "error": str(error)})
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(ExitCode.BAD_INPUT)

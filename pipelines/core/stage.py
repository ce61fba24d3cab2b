"""What every stage and command runs inside: its parameters, its MLflow run, and errors said clearly."""

import importlib.util
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines.core import artifacts, tracking
from pipelines.core.config import Params, load_params
from pipelines.core.errors import BadInput, ExitCode
from pipelines.core.jsonl import write_json


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
            yield Stage(name, params, artifacts.ROOT / name, tracker)
            peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            tracker.log_metrics({"stage_seconds": time.monotonic() - started, "peak_memory_mib": peak_mib})
    except BadInput as error:
        write_json(failure, {"stage": name, "error": str(error)})
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(ExitCode.BAD_INPUT)

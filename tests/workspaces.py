"""A folder that a stage can run in: resolved parameters, the project's code, no tracking server."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pipelines.core import config
from pipelines.core.workspace import write_params

ROOT = Path(__file__).parents[1]
CODE = ("pipelines", "labeling", "evals", "serving")


def make_workspace(folder: Path, overrides: Sequence[str] = (), profile: str = "tiny") -> Path:
    """A workspace in `folder`; its code is copied, since a stage refuses code from elsewhere."""
    for package in CODE:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    write_params(folder, config.resolve(ROOT, profile, list(overrides)))
    return folder


def stage_environment(workspace: Path) -> dict[str, str]:
    """What a stage sees when the stage runner starts it, less the tracking server."""
    environment = os.environ | {"PYTHONPATH": str(workspace), "PYTHONNOUSERSITE": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    return environment


def run_stage(workspace: Path, module: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m module` in `workspace` as the stage runner does, less the tracking server."""
    return subprocess.run(
        [sys.executable, "-m", module],
        cwd=workspace,
        env=stage_environment(workspace),
        capture_output=True,
        text=True,
        timeout=300,
    )


def kill_stage(workspace: Path, module: str, when: Callable[[], bool]) -> None:
    """Run the stage and end it by SIGKILL as soon as `when` holds; fails when the stage ends before."""
    words = [sys.executable, "-m", module]
    with subprocess.Popen(
        words, cwd=workspace, env=stage_environment(workspace), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as stage:
        while stage.poll() is None and not when():
            time.sleep(0.002)
        assert stage.poll() is None, f"{module} ended before it could be killed: {stage.communicate()[1]!r}"
        stage.kill()

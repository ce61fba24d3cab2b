"""Commands of the labeling package against the session's Label Studio."""

import contextlib
import importlib
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from labeling.accounts import ensure_accounts
from labeling.client import LabelStudio
from pipelines.core import stage
from tests.label_studio import Server

Run = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="session")
def labelers_file(label_studio: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three accounts of simulated labelers."""
    path = tmp_path_factory.mktemp("labelers") / "labelers.json"
    with LabelStudio(label_studio.url, label_studio.token) as admin:
        ensure_accounts(admin, 3, path)
    return path


@pytest.fixture
def variables(label_studio: Server, labelers_file: Path, tmp_path: Path) -> dict[str, str]:
    """The environment variables that the stack gives to commands."""
    return label_studio.environment | {"LABELERS_FILE": str(labelers_file), "COLLOQUY_HOME": str(tmp_path / "home")}


@pytest.fixture
def run(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the module `words[0]` in a workspace, in this process: a start of Python costs more than what is tested."""
    monkeypatch.setattr(stage, "_require_own_code", lambda: None)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def call(root: Path, *words: str, **changed: str) -> subprocess.CompletedProcess:
        out, err, code = io.StringIO(), io.StringIO(), 0
        with monkeypatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            patch.chdir(root)
            patch.setattr(sys, "argv", list(words))
            for name, value in (variables | changed).items():
                patch.setenv(name, value)
            try:
                importlib.import_module(words[0]).main()
            except SystemExit as end:
                code = int(end.code or 0)
        return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())

    return call


@pytest.fixture
def command(variables: dict[str, str]) -> Run:
    """Run `python -m <words>` in a workspace with the workspace's own code, as a DAG's task does."""

    def call(root: Path, *words: str) -> subprocess.CompletedProcess:
        environment = os.environ | variables | {"PYTHONPATH": str(root), "PYTHONNOUSERSITE": "1"}
        environment.pop("MLFLOW_TRACKING_URI", None)
        line = [sys.executable, "-m", *words]
        return subprocess.run(line, cwd=root, env=environment, capture_output=True, text=True, timeout=120)

    return call


@pytest.fixture
def admin(label_studio: Server) -> LabelStudio:
    return LabelStudio(label_studio.url, label_studio.token)

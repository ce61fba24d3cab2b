"""Runs a stage's main() inside the test process: for stages whose imports cost more than their work."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pipelines.core import config, stage
from pipelines.core.workspace import write_params
from tests.workspaces import ROOT


def enter_workspace(folder: Path, monkeypatch: pytest.MonkeyPatch, overrides: Sequence[str] = ()) -> None:
    """Make `folder` the working folder, with parameters and no tracking server; the code stays where it is."""
    write_params(folder, config.resolve(ROOT, "tiny", list(overrides)))
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(stage, "_require_own_code", lambda: None)


def exit_code(main: Callable[[], None]) -> int:
    """What the process would end with."""
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0

"""A DAG as Airflow's own interpreter parses it."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
AIRFLOW = Path(os.environ.get("COLLOQUY_ENVS", ROOT / ".envs")) / "airflow" / "bin" / "python"


def parsed(name: str, home: Path, **variables: str) -> dict[str, Any]:
    """What `show_dag.py` says of the DAG `name`; skips where Airflow is not installed."""
    if not AIRFLOW.exists():
        pytest.skip(f"{AIRFLOW} is missing; `make setup` creates it")
    environment = os.environ | {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"} | variables
    for other in ("PYTHONPATH", "PYTHONHOME"):
        environment.pop(other, None)
    command = [AIRFLOW, ROOT / "tests" / "dags" / "show_dag.py", name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    shown: dict[str, Any] = json.loads(done.stdout)
    assert shown["errors"] == {}
    return shown

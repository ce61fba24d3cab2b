"""The DAG that looks at a candidate every few minutes."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
AIRFLOW = Path(os.environ.get("COLLOQUY_ENVS", ROOT / ".envs")) / "airflow" / "bin" / "python"


@pytest.fixture(scope="module")
def dag(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if not AIRFLOW.exists():
        pytest.skip(f"{AIRFLOW} is missing; `make setup` creates it")
    home = tmp_path_factory.mktemp("airflow")
    environment = os.environ | {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    for name in ("PYTHONPATH", "PYTHONHOME"):
        environment.pop(name, None)
    command = [AIRFLOW, ROOT / "tests" / "dags" / "show_dag.py", "watch_production"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    shown: dict[str, Any] = json.loads(done.stdout)
    assert shown["errors"] == {}
    return shown


def test_it_takes_turns_with_releases(dag: dict[str, Any]) -> None:
    assert {name: task["pool"] for name, task in dag["tasks"].items()} == {"rollout": "release"}
    assert dag["tasks"]["rollout"]["inlets"] == ["release"]

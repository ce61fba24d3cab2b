"""The DAG that turns feedback into a round: an export, then a run of `train_assistant`."""

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
    command = [AIRFLOW, ROOT / "tests" / "dags" / "show_dag.py", "learn_from_feedback"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    shown: dict[str, Any] = json.loads(done.stdout)
    assert shown["errors"] == {}
    return shown


def test_a_run_of_train_assistant_follows_the_export(dag: dict[str, Any]) -> None:
    assert {name: task["downstream"] for name, task in dag["tasks"].items()} == {
        "export_feedback": ["train_assistant"],
        "train_assistant": [],
    }
    assert {(task["retries"], task["retry_delay_s"]) for task in dag["tasks"].values()} == {(3, 5.0)}


def test_the_export_is_what_the_round_takes(dag: dict[str, Any]) -> None:
    assert dag["tasks"]["export_feedback"]["outlets"] == ["feedback"]


def test_the_form_describes_every_field(dag: dict[str, Any]) -> None:
    assert set(dag["params"]) == {"overrides", "commit"}
    assert all(param["description"] for param in dag["params"].values())

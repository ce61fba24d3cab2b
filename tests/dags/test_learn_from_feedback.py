"""The DAG that turns feedback into a round: an export, then a run of `train_assistant`."""

from typing import Any

import pytest

from tests.dags.parsed import parsed


@pytest.fixture(scope="module")
def dag(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return parsed("learn_from_feedback", tmp_path_factory.mktemp("airflow"))


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

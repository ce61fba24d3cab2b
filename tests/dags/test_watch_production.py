"""The DAG that looks at a candidate every few minutes."""

from typing import Any

import pytest

from tests.dags.parsed import parsed


@pytest.fixture(scope="module")
def dag(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return parsed("watch_production", tmp_path_factory.mktemp("airflow"))


def test_it_takes_turns_with_releases(dag: dict[str, Any]) -> None:
    assert {name: task["pool"] for name, task in dag["tasks"].items()} == {"rollout": "release"}
    assert dag["tasks"]["rollout"]["inlets"] == ["release"]

"""The DAG, as Airflow itself reads it: order, pools, retries, and that it follows dvc.yaml."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.core.config import profile_names, read_yaml
from tests.dags.parsed import parsed

ROOT = Path(__file__).parents[2]
STAGES = read_yaml(ROOT / "dvc.yaml")["stages"]
COMMANDS = {"open_workspace", "push_tasks", "wait", "summarize"}
GROUPS = {
    "data": ["ingest", "train_moderation", "prepare_corpus", "validate_corpus"],
    "pretraining": ["train_tokenizer", "tokenize_corpus", "pretrain"],
    "finetuning": ["pull_demonstrations", "prepare_sft", "validate_sft", "sft"],
    "labeling": [
        "previous_round",
        "pull_feedback",
        "sample_completions",
        "push_tasks",
        "wait",
        "pull_annotations",
        "prepare_preferences",
        "validate_preferences",
    ],
    "alignment": ["reward_model", "ppo", "dpo", "grpo", "rloo", "best_of_n"],
    "evaluation": ["evaluate", "gate"],
    "release": ["register", "build_bento", "approve", "deploy", "smoke_test"],
}


@pytest.fixture(scope="module")
def dag(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return parsed("train_assistant", tmp_path_factory.mktemp("airflow"), COLLOQUY_GPU_POD_TEMPLATE="gpu-pod.yaml")


def reachable(dag: dict[str, Any], start: str) -> set[str]:
    seen: set[str] = set()
    todo = [start]
    while todo:
        for name in dag["tasks"][todo.pop()]["downstream"]:
            if name not in seen:
                seen.add(name)
                todo.append(name)
    return seen


def test_it_parses(dag: dict[str, Any]) -> None:
    assert dag["errors"] == {}


def test_its_tasks_are_the_stages_and_the_commands(dag: dict[str, Any]) -> None:
    assert set(dag["tasks"]) == set(STAGES) | COMMANDS | set(GROUPS["release"])


def test_its_groups_hold_their_tasks(dag: dict[str, Any]) -> None:
    for group, tasks in GROUPS.items():
        assert {name for name, task in dag["tasks"].items() if task["group"] == group} == set(tasks)


def test_every_edge_of_dvc_is_a_path_in_the_dag(dag: dict[str, Any]) -> None:
    producers = {out: name for name, stage in STAGES.items() for out in stage["outs"] + stage["metrics"]}
    for name, stage in STAGES.items():
        for dependency in stage["deps"]:
            if producer := producers.get(dependency):
                assert name in reachable(dag, producer), f"{producer} -> {name}"


def test_tasks_that_move_the_champion_take_turns(dag: dict[str, Any]) -> None:
    assert {name for name, task in dag["tasks"].items() if task["pool"] == "release"} == set(GROUPS["release"])


def test_stages_share_the_compute_pool(dag: dict[str, Any]) -> None:
    assert all(dag["tasks"][name]["pool"] == "compute" for name in STAGES)


def test_killed_tasks_are_tried_again_soon(dag: dict[str, Any]) -> None:
    assert {(task["retries"], task["retry_delay_s"]) for task in dag["tasks"].values()} == {(3, 5.0)}


def test_a_release_waits_for_a_person_or_does_not_ask(dag: dict[str, Any]) -> None:
    assert dag["tasks"]["deploy"]["trigger_rule"] == "none_failed_min_one_success"
    assert {name for name, task in dag["tasks"].items() if "deploy" in task["downstream"]} == {"build_bento", "approve"}


def test_the_summary_runs_whatever_happened(dag: dict[str, Any]) -> None:
    assert dag["tasks"]["summarize"]["trigger_rule"] == "all_done"
    assert all("summarize" in reachable(dag, name) for name in dag["tasks"] if name != "summarize")


def test_the_form_describes_every_field(dag: dict[str, Any]) -> None:
    assert set(dag["params"]) == {"profile", "base_model", "labelers", "align_method", "overrides", "commit"}
    assert all(param["description"] for param in dag["params"].values())
    assert dag["params"]["profile"]["schema"]["enum"] == profile_names(ROOT)


def test_stages_that_train_or_generate_ask_for_a_pod_with_a_gpu(dag: dict[str, Any]) -> None:
    on_gpu = {name for name, task in dag["tasks"].items() if task["executor_config"]}
    assert on_gpu == {"pretrain", "sft", "sample_completions", "evaluate", *GROUPS["alignment"]}
    assert dag["tasks"]["ppo"]["executor_config"] == {"pod_template_file": "gpu-pod.yaml"}

"""The whole loop on `tiny`, as a person runs it: make demo, then the same again, then one parameter changed."""

import json
import subprocess
from pathlib import Path

import httpx
import openai
import pytest
from mlflow import MlflowClient

from pipelines.core import artifacts
from pipelines.core.config import read_yaml
from pipelines.core.jsonl import read_json, read_rows
from tests.mlflow_pages import require_page

from .conftest import ROOT, Loop

pytestmark = pytest.mark.loop

STAGES = read_yaml(ROOT / "dvc.yaml")["stages"]
ALWAYS_RUN = {"pull_annotations", "pull_demonstrations"}  # look for new labels each time
NOT_CHOSEN = {"dpo", "grpo", "rloo", "best_of_n"}  # alignment methods
FIGURES = {"perplexity", "mmlu", "judge_win_rate", "reward_sft", "reward_aligned", "kl", "agreement"}


def test_the_demo_ends_with_a_summary_and_four_addresses(loop: Loop) -> None:
    summary = loop.first.summary
    assert summary["failures"] == []
    assert set(summary["figures"]) >= FIGURES
    assert summary["verdict"]["verdict"] == "pass"
    assert "demo rules" in summary["verdict"]["text"]
    for name in ("airflow", "mlflow", "label_studio", "chat"):
        assert loop.addresses[name] in loop.first.output


def test_every_stage_of_the_chosen_method_ran(loop: Loop) -> None:
    ran = {entry["stage"] for entry in loop.first.summary["stages"]}
    assert ran >= set(STAGES) - NOT_CHOSEN


def test_the_assistant_answers_the_official_client(loop: Loop) -> None:
    client = openai.OpenAI(base_url=f"{loop.addresses['chat']}/v1", api_key="none", max_retries=0)
    model = client.models.list().data[0].id
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Hello!"}], max_tokens=8, temperature=0
    )
    assert answer.choices[0].message.role == "assistant"
    assert answer.usage is not None and answer.usage.completion_tokens <= 8


def test_the_chat_page_says_that_labels_were_simulated(loop: Loop) -> None:
    status = httpx.get(f"{loop.addresses['chat']}/api/status").json()
    assert status["simulated_labels"] is True
    assert status["bento"] == loop.first.summary["bento"]


def test_mlflow_has_one_run_per_stage_under_one_parent(loop: Loop) -> None:
    client = MlflowClient(loop.addresses["mlflow"])
    experiment = client.get_experiment_by_name("colloquy")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.dag_run = 'first'", max_results=200)
    stages = {run.data.tags["stage"] for run in runs if run.info.status == "FINISHED"}
    assert stages >= (set(STAGES) - NOT_CHOSEN) | {"run"}


def test_the_registry_says_who_serves_and_what_it_came_from(loop: Loop) -> None:
    client = MlflowClient(loop.addresses["mlflow"])
    champion = client.get_model_version_by_alias("colloquy", "champion")
    assert int(champion.version) == loop.first.summary["model_version"]
    assert champion.tags["simulated_labels"] == "true"
    assert (
        champion.tags["git_commit"]
        == subprocess.check_output(["git", "-C", loop.clone, "rev-parse", "HEAD"], text=True).strip()
    )


def test_a_trace_of_a_served_answer_leads_to_pages_that_are_there(loop: Loop) -> None:
    with httpx.Client(base_url=loop.addresses["chat"], timeout=60) as client:
        conversation = client.post("/api/conversations", json={}).json()["conversation_id"]
        client.post(f"/api/conversations/{conversation}/messages", json={"content": "Hello!"}).raise_for_status()
        shown = client.get(f"/api/conversations/{conversation}").json()["messages"]
    done = loop.make("trace", f"MESSAGE={shown[-1]['message_id']}")
    assert done.returncode == 0, done.stderr
    pages = [line.strip() for line in done.stdout.splitlines() if "/#/" in line]
    assert len(set(pages)) >= 9
    for page in pages:
        require_page(page)
    licenses = {source["license"] for source in read_json(loop.first.workspace / artifacts.INGEST_MANIFEST)["sources"]}
    assert licenses and all(license in done.stdout for license in licenses)


def test_a_release_tag_brings_back_every_input(loop: Loop, tmp_path: Path) -> None:
    tag = json.loads((loop.first.workspace / ".run" / "register.json").read_text())["tag"]
    worktree = tmp_path / "released"
    subprocess.run(["git", "-C", loop.clone, "worktree", "add", "-q", "--detach", worktree, tag], check=True)
    (worktree / ".dvc" / "config.local").write_text((loop.first.workspace / ".dvc" / "config.local").read_text())
    dvc = Path(loop.environment["COLLOQUY_ENVS"], "project", "bin", "dvc")
    subprocess.run([dvc, "checkout", "-q"], cwd=worktree, check=True)
    for stage in ("ingest", "pull_annotations", "reward_model", "ppo"):
        released = sorted(path.relative_to(worktree) for path in (worktree / "artifacts" / stage).rglob("*"))
        assert released
        for path in released:
            if (worktree / path).is_file():
                assert (worktree / path).read_bytes() == (loop.first.workspace / path).read_bytes()


def test_the_users_tree_is_left_alone(loop: Loop) -> None:
    status = subprocess.check_output(["git", "-C", loop.clone, "status", "--porcelain"], text=True)
    assert status == ""


def test_an_unchanged_run_is_all_cache_and_the_same_version(loop: Loop) -> None:
    again = loop.demo("again")
    assert again.exit_code == 0
    ran = {stage for stage, cached in again.cached.items() if stage in STAGES and not cached}
    assert ran <= ALWAYS_RUN
    assert again.summary["model_version"] == loop.first.summary["model_version"]
    assert again.summary["bento"] == loop.first.summary["bento"]


def test_one_parameter_of_ppo_reruns_ppo_and_what_depends_on_it(loop: Loop) -> None:
    changed = loop.demo("changed", "SET=ppo.kl_coefficient=0.06")
    ran = {stage for stage, cached in changed.cached.items() if stage in STAGES and not cached}
    assert ran - ALWAYS_RUN == {"ppo", "evaluate", "gate"}
    if changed.exit_code == 0:
        assert changed.summary["model_version"] > loop.first.summary["model_version"]


def test_a_second_round_samples_from_the_first_policy_and_learns_from_both(loop: Loop) -> None:
    second = loop.demo("second", "SET=previous_round.run=first")
    assert second.summary["failures"] == [], second.output[-4000:]
    ran = {stage for stage, cached in second.cached.items() if stage in STAGES and not cached}
    assert {"sample_completions", "reward_model", "ppo"} <= ran
    assert not ran & {"pretrain", "sft"}
    first_batch, batch = (
        {row["id"] for row in read_rows(run.workspace / artifacts.LABEL_BATCH)} for run in (loop.first, second)
    )
    assert batch and not batch & first_batch
    first_pairs, pairs = (
        {row["id"] for row in read_rows(run.workspace / artifacts.PREFERENCES_TRAIN)} for run in (loop.first, second)
    )
    assert first_pairs < pairs


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["PROFILE=huge"], "huge"),
        (["SET=ppo.stepz=1"], "ppo.stepz"),
        (["SET=ppo.steps=many"], "ppo.steps"),
        (["SET=resources.min_memory_gib=100000"], "GiB of memory"),
        (["SET=prepare_sft.demonstrations=not/there.jsonl"], "not/there.jsonl"),
    ],
)
def test_bad_input_starts_nothing_and_is_named(loop: Loop, words: list[str], named: str) -> None:
    done = loop.make("demo", "PROFILE=tiny", "RUN_ID=refused", *words)
    assert done.returncode != 0
    assert named in done.stdout + done.stderr
    assert not (loop.home / "workspaces" / "refused").exists()


def test_a_dirty_tree_is_refused_with_its_files(loop: Loop) -> None:
    scribble = loop.clone / "pipelines" / "scribble.py"
    scribble.write_text('"""Not committed."""\n')
    try:
        done = loop.make("demo", "PROFILE=tiny", "RUN_ID=dirty")
    finally:
        scribble.unlink()
    assert done.returncode != 0
    assert "pipelines/scribble.py" in done.stdout + done.stderr

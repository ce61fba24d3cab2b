"""What `make demo` refuses, commits and prints."""

import json
import subprocess
from pathlib import Path

import pytest

from deploy.local import demo
from deploy.local.settings import DEFAULT_PORTS, Settings
from pipelines.core.errors import BadInput
from pipelines.core.workspace import RunRequest


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "home", tmp_path / "envs", dict(DEFAULT_PORTS))


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, in place of the project's."""
    folder = tmp_path / "repository"
    folder.mkdir()
    monkeypatch.setattr(demo, "ROOT", folder)
    monkeypatch.delenv("ALLOW_DIRTY", raising=False)
    for name, value in {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}.items():
        monkeypatch.setenv(name, value)  # a machine whose git knows no author
    (folder / "kept.txt").write_text("one\n")
    (folder / ".gitignore").write_text("ignored.txt\n")
    demo.git("init", "-q", "-b", "main")
    demo.git("add", "-A")
    author = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
    subprocess.run(["git", *author, "commit", "-qm", "first"], cwd=folder, check=True)
    return folder


def test_a_clean_tree_runs_its_commit(repository: Path):
    assert demo.commit_to_run("r") == demo.git("rev-parse", "HEAD")


def test_a_dirty_tree_is_refused_with_the_list_of_files(repository: Path):
    (repository / "kept.txt").write_text("two\n")
    (repository / "new.txt").write_text("new\n")
    with pytest.raises(BadInput, match=r"(?s)kept\.txt.*new\.txt.*ALLOW_DIRTY=1"):
        demo.commit_to_run("r")


def test_a_snapshot_holds_the_tree_and_touches_neither_branch_nor_index(
    repository: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ALLOW_DIRTY", "1")
    (repository / "kept.txt").write_text("two\n")
    (repository / "new.txt").write_text("new\n")
    (repository / "ignored.txt").write_text("secret\n")
    head, status = demo.git("rev-parse", "main"), demo.git("status", "--porcelain")
    commit = demo.commit_to_run("tiny run:1")
    assert demo.git("rev-parse", "main") == head
    assert demo.git("status", "--porcelain") == status
    assert demo.git("rev-parse", "refs/colloquy/runs/tiny-run-1") == commit
    assert demo.git("ls-tree", "--name-only", commit).split() == [".gitignore", "kept.txt", "new.txt"]
    assert demo.git("show", f"{commit}:kept.txt") == "two"


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (RunRequest("r", "huge"), "tiny"),
        (RunRequest("r", "tiny", overrides=("ppo.stepz=3",)), "ppo.steps"),
        (RunRequest("r", "tiny", overrides=("ppo.steps=many",)), "ppo.steps"),
        (RunRequest("r", "tiny", base_model="folder:/nowhere"), "/nowhere"),
        (RunRequest("r", "tiny", overrides=("resources.min_free_disk_gib=1.0e+9",)), "GiB free"),
        (RunRequest("r", "tiny", overrides=("resources.min_memory_gib=1.0e+9",)), "GiB of memory"),
        (RunRequest("r", "tiny", overrides=("prepare_sft.prompts=nowhere.jsonl",)), "nowhere.jsonl"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_starts(settings: Settings, request_: RunRequest, message: str):
    with pytest.raises(BadInput, match=message):
        demo.check(settings, request_)
    assert not (settings.home / "stack").exists()


def test_a_missing_tool_is_one_note(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo.shutil, "which", lambda tool: None if tool == "chromium" else f"/usr/bin/{tool}")
    notes = demo.check(settings, RunRequest("r", "tiny", overrides=("resources.min_free_disk_gib=0.1",)))
    assert notes == ["chromium is not installed: the smoke test leaves the browser out"]


def test_a_finished_task_is_one_line_with_its_key_metric(tmp_path: Path):
    metrics = tmp_path / "artifacts" / "metrics" / "sft.json"
    metrics.parent.mkdir(parents=True)
    metrics.write_text(json.dumps({"held_out_loss": 2.34567, "other": 1}))
    line = demo.task_line({"task_id": "sft", "state": "success", "duration": 12.34}, tmp_path)
    assert line.split() == ["sft", "success", "12.3", "s", "held_out_loss", "2.346"]
    assert "held_out_loss" not in demo.task_line({"task_id": "sft", "state": "failed", "duration": None}, tmp_path)


class FakeApi:
    """Gives one scene after the other."""

    def __init__(self, scenes: list[tuple[str, list[dict]]]) -> None:
        self._scenes = scenes

    def run(self, dag: str, run_id: str) -> dict:
        return {"state": self._scenes[0][0]}

    def tasks(self, dag: str, run_id: str) -> list[dict]:
        return self._scenes.pop(0)[1]


def task(name: str, state: str, tries: int = 1) -> dict:
    return {"task_id": name, "state": state, "duration": 1.0, "end_date": None, "try_number": tries}


def test_each_task_is_told_once_and_a_retry_too(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(demo, "LOOK_S", 0)
    scenes = [
        ("running", [task("ingest", "success"), task("sft", "up_for_retry")]),
        ("running", [task("ingest", "success"), task("sft", "up_for_retry")]),
        ("success", [task("ingest", "success"), task("sft", "success", tries=2)]),
    ]
    assert demo.follow(FakeApi(scenes), settings, "r", 0.0) == "success"
    out = capsys.readouterr().out
    assert out.count("ingest") == 1
    assert out.count("trying again") == 1
    assert out.count("sft") == 2


def test_people_are_told_where_to_rank(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(demo, "LOOK_S", 0)
    waiting = ("running", [task("wait", "up_for_reschedule")])
    demo.follow(FakeApi([waiting, waiting, ("success", [task("wait", "success")])]), settings, "r", 0.0)
    out = capsys.readouterr().out
    assert out.count(settings.url("LABEL_STUDIO")) == 1
    assert str(settings.secrets_file) in out

"""Rated answers come from the pinned snapshot, and never ask what the splits have."""

from pathlib import Path

import pytest

from pipelines import pull_feedback
from pipelines.core import artifacts, config, feedback
from pipelines.core.errors import BadInput, ExitCode
from pipelines.core.feedback import RatedAnswer
from pipelines.core.jsonl import read_json, read_rows, write_rows
from pipelines.core.records import Conversation, Message
from pipelines.core.workspace import pin
from tests.pipelines.in_process import enter_workspace, exit_code
from tests.workspaces import ROOT


def asking(question: str) -> Conversation:
    return Conversation(question, (Message("user", question),), "feedback", "feedback", "CC-BY-4.0")


def enter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> Path:
    """A workspace in whose splits somebody asks "Known?", beside a snapshot of three answers; returns the snapshot."""
    (tmp_path / "run").mkdir()
    enter_workspace(tmp_path / "run", monkeypatch, overrides)
    monkeypatch.setenv("COLLOQUY_HOME", str(tmp_path))
    for path in pull_feedback.SPLITS:
        write_rows(path, [])
    write_rows(artifacts.PROMPTS_HELD_OUT, [asking("Known?").to_row()])
    answers = (RatedAnswer(asking(question), "Yes.", 0.5, "down") for question in ("New?", " known?", "Newer?"))
    snapshot = feedback.folder(tmp_path, "one") / feedback.ANSWERS
    write_rows(snapshot, (answer.to_row() for answer in answers))
    return snapshot


def test_without_a_snapshot_there_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(tmp_path, monkeypatch)
    assert exit_code(pull_feedback.main) == 0
    assert list(read_rows(artifacts.FEEDBACK)) == []


def test_answers_to_questions_of_the_splits_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "first").mkdir()
    enter(tmp_path / "first", monkeypatch)
    sha256 = feedback.answers_sha256(tmp_path / "first", "one")
    enter(tmp_path, monkeypatch, "pull_feedback.snapshot=one", f"pull_feedback.sha256={sha256}")
    assert exit_code(pull_feedback.main) == 0
    found = [RatedAnswer.from_row(row) for row in read_rows(artifacts.FEEDBACK)]
    assert [answer.prompt.messages[0].content for answer in found] == ["New?", "Newer?"]
    assert found[0] == RatedAnswer(asking("New?"), "Yes.", 0.5, "down")


def test_a_snapshot_that_changed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(tmp_path, monkeypatch, "pull_feedback.snapshot=one", "pull_feedback.sha256=another")
    assert exit_code(pull_feedback.main) == ExitCode.BAD_INPUT
    assert "has changed since" in read_json(artifacts.FAILURES / "pull_feedback.json")["error"]


def test_the_snapshot_is_pinned_when_a_workspace_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = enter(tmp_path, monkeypatch)
    values = config.resolve(ROOT, "tiny", ["pull_feedback.snapshot=one"])
    pin(values, tmp_path)
    assert values["pull_feedback"]["sha256"] == feedback.answers_sha256(tmp_path, "one")
    snapshot.unlink()
    with pytest.raises(BadInput, match="never exported, or kept long enough"):
        pin(config.resolve(ROOT, "tiny", ["pull_feedback.snapshot=one"]), tmp_path)

"""The snapshot of the round before: nothing in the first round, all that the next one needs afterwards."""

import json
from pathlib import Path

import pytest

from pipelines import previous_round
from pipelines.core import artifacts, config
from pipelines.core.digests import file_sha256
from pipelines.core.errors import BadInput, ExitCode
from pipelines.core.jsonl import read_json, read_rows, write_json, write_rows
from pipelines.core.rounds import EarlierRound
from pipelines.core.workspace import pin, write_params
from tests.pipelines.in_process import enter_workspace, exit_code
from tests.workspaces import ROOT


def finished_run(home: Path, run: str, number: int = 1) -> Path:
    """The workspace of a run that aligned by DPO on simulated labels."""
    workspace = home / "workspaces" / run
    workspace.mkdir(parents=True)
    older = config.resolve(ROOT, "tiny", ["align.method=dpo"])
    del older["release"]  # a section that came later
    write_params(workspace, older)
    outs = [{"path": "artifacts/pull_annotations", "md5": f"{run}.dir"}]
    (workspace / "dvc.lock").write_text(json.dumps({"stages": {"pull_annotations": {"cmd": run, "outs": outs}}}))
    write_rows(workspace / artifacts.EARLIER_ROUNDS, [{"run": "older", "outs": {}}] * (number - 1))
    for folder in (artifacts.DPO, artifacts.REWARD_MODEL):
        (workspace / folder).mkdir(parents=True)
        (workspace / folder / "config.json").write_text(folder.name)
    write_rows(workspace / artifacts.PREFERENCES_TRAIN, [{"id": "a", "simulated": True}])
    write_rows(workspace / artifacts.PREFERENCES_HELD_OUT, [{"id": "b", "simulated": True}])
    write_json(workspace / artifacts.metrics_of("reward_model"), {"held_out_accuracy_low": 0.7})
    write_json(workspace / artifacts.metrics_of("prepare_preferences"), {"reward_model_agreement": 0.8})
    write_json(workspace / artifacts.PREVIOUS_ROUND_MANIFEST, {"number": number})
    return workspace


def enter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> Path:
    (tmp_path / "run").mkdir()
    enter_workspace(tmp_path / "run", monkeypatch, overrides)
    monkeypatch.setenv("COLLOQUY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def after(home: Path, run: str) -> list[str]:
    lock = home / "workspaces" / run / "dvc.lock"
    return [f"previous_round.run={run}", f"previous_round.lock_sha256={file_sha256(lock)}"]


def test_the_first_round_has_nothing_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(tmp_path, monkeypatch)
    assert exit_code(previous_round.main) == 0
    assert EarlierRound.read() == previous_round.FIRST
    assert {path.name for path in artifacts.PREVIOUS_ROUND.iterdir()} == {"manifest.json", "rounds.jsonl"}
    assert list(read_rows(artifacts.EARLIER_ROUNDS)) == []


def test_the_next_round_has_policy_reward_model_and_preferences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished_run(tmp_path / "home", "two", number=2)
    enter(tmp_path, monkeypatch, *after(tmp_path / "home", "two"))
    assert exit_code(previous_round.main) == 0
    found = EarlierRound.read()
    assert (found.number, found.run, found.simulated) == (3, "two", True)
    assert found.reward_model == {"held_out_accuracy_low": 0.7}
    labels = {"artifacts/pull_annotations": "two.dir"}
    assert list(read_rows(artifacts.EARLIER_ROUNDS)) == [{"run": "two", "outs": labels}, {"run": "older", "outs": {}}]
    assert (artifacts.PREVIOUS_POLICY / "config.json").read_text() == "dpo"
    assert (artifacts.PREVIOUS_REWARD_MODEL / "config.json").read_text() == "reward_model"
    assert [row["id"] for row in read_rows(artifacts.PREVIOUS_PREFERENCES_TRAIN)] == ["a"]
    assert [row["id"] for row in read_rows(artifacts.PREVIOUS_PREFERENCES_HELD_OUT)] == ["b"]


def test_the_challengers_policy_lies_beside_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    lock = finished_run(home, "other") / "dvc.lock"
    pinned = ["previous_round.challenger=other", f"previous_round.challenger_sha256={file_sha256(lock)}"]
    finished_run(home, "one")
    enter(tmp_path, monkeypatch, *after(home, "one"), *pinned)
    assert exit_code(previous_round.main) == 0
    assert (artifacts.PREVIOUS_CHALLENGER / "config.json").read_text() == "dpo"
    lock.write_text("another")
    assert exit_code(previous_round.main) == ExitCode.BAD_INPUT
    assert "previous_round.challenger=other" in read_json(artifacts.FAILURES / "previous_round.json")["error"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda workspace: (workspace / "dvc.lock").write_text("another"), "has changed since this run was opened"),
        (lambda workspace: (workspace / "dvc.lock").unlink(), "is not there or has no result"),
        (lambda workspace: (workspace / artifacts.PREFERENCES_TRAIN).unlink(), "did not come that far"),
    ],
)
def test_a_run_that_nothing_can_go_on_from_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil, said: str
) -> None:
    workspace = finished_run(tmp_path / "home", "one")
    enter(tmp_path, monkeypatch, *after(tmp_path / "home", "one"))
    spoil(workspace)
    assert exit_code(previous_round.main) == ExitCode.BAD_INPUT
    assert said in read_json(artifacts.FAILURES / "previous_round.json")["error"]


def test_the_run_before_is_pinned_when_a_workspace_is_opened(tmp_path: Path) -> None:
    workspace = finished_run(tmp_path, "one")
    values = config.resolve(ROOT, "tiny", ["previous_round.run=one"])
    pin(values, tmp_path)
    assert values["previous_round"]["lock_sha256"] == file_sha256(workspace / "dvc.lock")
    with pytest.raises(BadInput, match="there is no finished run of that name"):
        pin(config.resolve(ROOT, "tiny", ["previous_round.run=gone"]), tmp_path)

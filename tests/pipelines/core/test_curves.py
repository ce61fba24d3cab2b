"""A training's curve is whole after a kill, free of the clock, and there even when nothing was trained."""

from pathlib import Path

import pytest

from pipelines.core import artifacts
from pipelines.core.curves import CurveTracker, joined, read_curve, write_curve
from pipelines.core.jsonl import read_rows
from pipelines.core.stage import open_stage
from pipelines.core.tracking import NoTracker
from tests.pipelines.in_process import enter_workspace


def test_a_trainer_leaves_its_curve_beside_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_workspace(tmp_path, monkeypatch)
    with open_stage("sft") as stage:
        stage.tracker.log_metrics({"loss": 2.0, "tokens_per_s": 99.0}, step=1)
        stage.tracker.log_metrics({"loss": 1.0, "train_runtime": 3.0}, step=2)
        stage.tracker.log_metrics({"held_out_loss": 1.5}, step=2)
        stage.write_metrics({"final": 1.0})
    expected = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "held_out_loss": 1.5}]
    assert list(read_rows(artifacts.SFT / "curve.jsonl")) == expected == read_curve("sft")
    assert not artifacts.curve_progress_of("sft").exists()


def test_a_training_that_goes_on_after_a_kill_has_one_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    killed = CurveTracker(NoTracker(), "ppo")
    for step in (1, 2, 3, 4):
        killed.log_metrics({"reward": float(step)}, step)
    with artifacts.curve_progress_of("ppo").open("ab") as out:
        out.write(b'{"step":5,"rew\n')
    resumed = CurveTracker(NoTracker(), "ppo")  # from the checkpoint after step 2
    for step in (3, 4):
        resumed.log_metrics({"reward": step + 0.5}, step)
    write_curve("ppo")
    found = [(row["step"], row["reward"]) for row in read_curve("ppo")]
    assert found == [(1, 1.0), (2, 2.0), (3, 3.5), (4, 4.5)]


def test_a_shorter_training_leaves_nothing_of_a_longer_one() -> None:
    rows = [{"step": 1, "loss": 5.0}, {"step": 9, "loss": 1.0}, {"step": 1, "loss": 4.0}, {"step": 2, "loss": 3.0}]
    assert joined(iter(rows)) == rows[2:]


def test_nothing_trained_is_an_empty_curve_and_other_stages_have_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter_workspace(tmp_path, monkeypatch)
    with open_stage("pretrain"), open_stage("evaluate"):
        pass
    assert read_curve("pretrain") == []
    assert artifacts.curve_of("pretrain").exists()
    assert not artifacts.curve_of("evaluate").exists()

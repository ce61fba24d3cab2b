"""validate_preferences: good pairs pass; a pair without a difference ends the run with its id."""

from pathlib import Path

import pytest

from pipelines import validate_preferences
from pipelines.core import artifacts
from pipelines.core.errors import ExitCode
from pipelines.core.jsonl import read_json, write_rows
from pipelines.core.records import Conversation, Message, Preference
from tests.pipelines.in_process import enter_workspace, exit_code


def pair(number: int, rejected: str = "Worse.") -> dict[str, object]:
    prompt = Conversation(f"c{number}", (Message("user", f"What is {number}?"),), "facts", "us", "MIT")
    return Preference(f"p{number}", prompt, "Better.", rejected, 1.0, simulated=True).to_row()


def test_the_stage_passes_good_pairs_and_stops_at_equal_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    enter_workspace(tmp_path, monkeypatch, ["validate_preferences.min_pairs=5"])
    write_rows(artifacts.PREFERENCES_HELD_OUT, [pair(100)])
    write_rows(artifacts.PREFERENCES_TRAIN, [pair(number) for number in range(8)])
    assert exit_code(validate_preferences.main) == 0
    assert read_json(artifacts.metrics_of("validate_preferences"))["preferences_records"] == 9

    write_rows(artifacts.PREFERENCES_TRAIN, [pair(1), pair(2, "Better. "), *map(pair, range(3, 8))])
    assert exit_code(validate_preferences.main) == ExitCode.BAD_INPUT
    assert "chosen and rejected differ: 1 records, for example p2" in capsys.readouterr().err

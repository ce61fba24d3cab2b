"""validate_preferences: good pairs pass; a pair without a difference ends the run with its id."""

from pathlib import Path

from pipelines.core import artifacts
from pipelines.core.errors import ExitCode
from pipelines.core.jsonl import read_json, write_rows
from pipelines.core.records import Conversation, Message, Preference
from tests.workspaces import make_workspace, run_stage


def pair(number: int, rejected: str = "Worse.") -> dict[str, object]:
    prompt = Conversation(f"c{number}", (Message("user", f"What is {number}?"),), "facts", "us", "MIT")
    return Preference(f"p{number}", prompt, "Better.", rejected, 1.0, simulated=True).to_row()


def test_the_stage_passes_good_pairs_and_stops_at_equal_ones(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "run", ["validate_preferences.min_pairs=5"])
    write_rows(workspace / artifacts.PREFERENCES_HELD_OUT, [pair(100)])
    write_rows(workspace / artifacts.PREFERENCES_TRAIN, [pair(number) for number in range(8)])
    done = run_stage(workspace, "pipelines.validate_preferences")
    assert done.returncode == 0, done.stderr
    assert read_json(workspace / artifacts.metrics_of("validate_preferences"))["preferences_records"] == 9

    write_rows(workspace / artifacts.PREFERENCES_TRAIN, [pair(1), pair(2, "Better. "), *map(pair, range(3, 8))])
    done = run_stage(workspace, "pipelines.validate_preferences")
    assert done.returncode == ExitCode.BAD_INPUT
    assert "chosen and rejected differ: 1 records, for example p2" in done.stderr

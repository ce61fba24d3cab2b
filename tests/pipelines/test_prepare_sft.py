"""prepare_sft: splits never overlap, sizes leave the held-out prompts alone, and people's answers are mixed in."""

from pathlib import Path

import pytest

from pipelines import prepare_sft
from pipelines.core import artifacts
from pipelines.core.conversations import read_conversations
from pipelines.core.errors import ExitCode
from pipelines.core.jsonl import Row, read_json, read_rows, write_rows
from pipelines.core.records import Conversation, Message, WrittenAnswer
from pipelines.prepare_sft import mixed
from tests.pipelines.conversation_files import row, write
from tests.pipelines.in_process import enter_workspace, exit_code


def test_every_prefix_has_all_categories(tmp_path: Path) -> None:
    lines = [row(f"q{n}", "a", category=f"c{n % 5}") for n in range(50)]
    ordered = mixed(read_conversations(write(tmp_path / "d.jsonl", lines), "assistant"), seed=1)
    assert {one.category for one in ordered[:10]} == {f"c{n}" for n in range(5)}
    assert ordered == mixed(list(reversed(ordered)), seed=1)


def written(number: int, verdict: str = "accepted", question: str | None = None) -> WrittenAnswer:
    prompt = Conversation(f"w{number}", (Message("user", question or f"asked {number}?"),), "facts", "us", "CC-BY-4.0")
    return WrittenAnswer(number, prompt, f"by a person {number}", 1, verdict, "ann", "bob", "", 60.0, "1")


def write_answers(folder: Path, answers: list[WrittenAnswer]) -> None:
    write_rows(folder / artifacts.WRITTEN_ANSWERS, (answer.to_row() for answer in answers))


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    demonstrations = [row(f"question {n}?", f"answer {n}") for n in range(30)]
    prompts = [row(f"prompt {n}?") for n in range(20)] + [row("question 3?")]
    write(tmp_path / "demonstrations.jsonl", demonstrations)
    write(tmp_path / "prompts.jsonl", prompts)
    sizes = ["labeling_prompts=6", "alignment_prompts=8", "held_out_prompts=4"]
    files = [f"{name}={tmp_path / name}.jsonl" for name in ("demonstrations", "prompts")]
    folder = tmp_path / "workspace"
    folder.mkdir()
    enter_workspace(folder, monkeypatch, [f"prepare_sft.{setting}" for setting in sizes + files])
    write_answers(folder, [])
    return folder


def questions(rows: list[Row]) -> set[str]:
    return {row["messages"][0]["content"] for row in rows}


def test_the_stage_writes_splits_that_share_no_question(workspace: Path) -> None:
    assert exit_code(prepare_sft.main) == 0
    splits = [
        questions(list(read_rows(workspace / path)))
        for path in (
            artifacts.SFT_TRAIN,
            artifacts.SFT_HELD_OUT,
            artifacts.PROMPTS_LABELING,
            artifacts.PROMPTS_ALIGNMENT,
            artifacts.PROMPTS_HELD_OUT,
        )
    ]
    assert [len(split) for split in splits] == [27, 3, 6, 8, 4]
    assert len(set.union(*splits)) == sum(map(len, splits))


def test_too_few_prompts_are_refused_with_the_numbers(tmp_path: Path, workspace: Path) -> None:
    write(tmp_path / "prompts.jsonl", [row(f"prompt {n}?") for n in range(5)])
    assert exit_code(prepare_sft.main) == ExitCode.BAD_INPUT
    error = read_json(workspace / artifacts.FAILURES / "prepare_sft.json")["error"]
    assert "5 prompts" in error and "18 are needed" in error


def test_accepted_answers_take_up_to_their_share_and_replace_the_same_question(workspace: Path) -> None:
    answers = [written(n) for n in range(60)] + [written(90, "returned"), written(91, "open")]
    answers += [written(92, question="Question 3? "), written(93, question="prompt 7?")]
    write_answers(workspace, answers)
    assert exit_code(prepare_sft.main) == 0
    rows = [row for path in (artifacts.SFT_TRAIN, artifacts.SFT_HELD_OUT) for row in read_rows(workspace / path)]
    by_people = [row for row in rows if row["source"] == "people"]
    assert len(rows) == 69 and len(by_people) == 40  # half of the 80 of profile tiny, and the 29 others
    assert all(row["messages"][-1]["content"].startswith("by a person") for row in by_people)
    held_out = [row["source"] for row in read_rows(workspace / artifacts.SFT_HELD_OUT)]
    assert "people" in held_out and "us" in held_out
    asked = {row["messages"][0]["content"].strip().lower() for row in rows}
    assert len(asked) == len(rows)
    prompts = questions(list(read_rows(workspace / artifacts.PROMPTS_ALIGNMENT)))
    assert not {"asked 90?", "asked 91?"} & asked and "prompt 7?" not in prompts


def test_no_answers_by_people_change_nothing(workspace: Path) -> None:
    assert exit_code(prepare_sft.main) == 0
    before = (workspace / artifacts.SFT_TRAIN).read_bytes()
    write_answers(workspace, [written(1, "open"), written(2, "returned")])
    assert exit_code(prepare_sft.main) == 0
    assert (workspace / artifacts.SFT_TRAIN).read_bytes() == before

"""prepare_sft: broken lines are all named, splits never overlap, and sizes leave the held-out prompts alone."""

import json
from pathlib import Path

import pytest

from pipelines import prepare_sft
from pipelines.core import artifacts
from pipelines.core.errors import BadInput, ExitCode
from pipelines.core.jsonl import Row, read_json, read_rows
from pipelines.prepare_sft import mixed, read_conversations
from tests.pipelines.in_process import enter_workspace, exit_code

KEYS = {"category": "facts", "source": "us", "license": "CC-BY-4.0"}


def turns(*contents: str, system: bool = False) -> list[dict[str, str]]:
    roles = ["system"] * system + ["user", "assistant"] * len(contents)
    return [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def row(*contents: str, **more: object) -> str:
    return json.dumps({"messages": turns(*contents)} | KEYS | more)


def test_good_lines_are_read_and_repetitions_kept_once(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", [row("Hi", "Hello"), "", row("Hi", "Hello"), row("Bye", "See you")])
    assert [one.messages[0].content for one in read_conversations(path, "assistant")] == ["Hi", "Bye"]


def test_every_broken_line_is_named_with_its_reason(tmp_path: Path) -> None:
    path = write(
        tmp_path / "d.jsonl",
        [
            row("Hi", "Hello"),
            "{broken",
            row("no answer"),
            json.dumps({"messages": turns("Hi", "Hello")}),
            json.dumps({"messages": [{"role": "robot", "content": "x"}]} | KEYS),
            row("Hi", "  "),
            "[1]",
        ],
    )
    with pytest.raises(BadInput) as raised:
        read_conversations(path, "assistant")
    message = str(raised.value)
    assert "6 broken lines" in message
    for words in ("line 2", "line 3: does not end", "line 4: lacks", "line 5: role 'robot'", "line 6", "line 7"):
        assert words in message


def test_an_id_names_one_conversation(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", [row("Hi", "Hello", id="a"), row("Bye", "See you", id="a")])
    with pytest.raises(BadInput, match="line 2: has the id 'a' of line 1"):
        read_conversations(path, "assistant")


def test_a_long_list_of_broken_lines_is_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", ["{"] * 50)
    with pytest.raises(BadInput, match=r"50 broken lines(.|\n)*and 30 more"):
        read_conversations(path, "assistant")


def test_every_prefix_has_all_categories(tmp_path: Path) -> None:
    lines = [row(f"q{n}", "a", category=f"c{n % 5}") for n in range(50)]
    ordered = mixed(read_conversations(write(tmp_path / "d.jsonl", lines), "assistant"), seed=1)
    assert {one.category for one in ordered[:10]} == {f"c{n}" for n in range(5)}
    assert ordered == mixed(list(reversed(ordered)), seed=1)


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

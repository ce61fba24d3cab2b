"""Files of conversations: every broken line is named with its number and reason."""

import json
from pathlib import Path

import pytest

from pipelines.core.conversations import read_conversations
from pipelines.core.errors import BadInput
from tests.pipelines.conversation_files import KEYS, row, turns, write


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

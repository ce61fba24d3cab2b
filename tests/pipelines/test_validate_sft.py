"""validate_sft: lengths are counted in tokens of the run's own tokenizer; a broken conversation ends the run."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from pipelines import validate_sft
from pipelines.core import artifacts
from pipelines.core.errors import BadInput, ExitCode
from pipelines.core.jsonl import read_json, write_rows
from pipelines.core.records import Conversation, Message
from pipelines.validate_sft import load_tokenizer, with_tokens
from tests.pipelines.in_process import enter_workspace, exit_code


def save_tokenizer(folder: Path) -> None:
    folder.mkdir(parents=True)
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))


def conversation(name: str, *contents: str) -> dict[str, object]:
    messages = tuple(
        Message("user" if place % 2 == 0 else "assistant", content) for place, content in enumerate(contents)
    )
    return Conversation(name, messages, "facts", "us", "MIT").to_row()


def test_tokens_are_counted_and_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="run train_tokenizer"):
        load_tokenizer(tmp_path)
    save_tokenizer(tmp_path / "tokenizer")
    rows = with_tokens([{"text": "one two three"}, {"text": "one"}], load_tokenizer(tmp_path / "tokenizer"))
    assert [row["tokens"] for row in rows] == [3, 1]


def test_the_stage_passes_good_splits_and_stops_at_one_that_leaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    enter_workspace(tmp_path, monkeypatch, ["validate_sft.min_conversations=5"])
    save_tokenizer(artifacts.TRAIN_TOKENIZER)
    write_rows(artifacts.SFT_TRAIN, [conversation(f"t{n}", f"What is {n}?", f"It is {n}.") for n in range(6)])
    write_rows(artifacts.SFT_HELD_OUT, [conversation("h", "And you?", "Fine.")])
    for name, path in (("l", artifacts.PROMPTS_LABELING), ("a", artifacts.PROMPTS_ALIGNMENT)):
        write_rows(path, [conversation(f"{name}{n}", f"Tell {name} of {n}.") for n in range(4)])
    write_rows(artifacts.PROMPTS_HELD_OUT, [conversation("o", "Tell me of the sea.")])
    assert exit_code(validate_sft.main) == 0
    metrics = read_json(artifacts.metrics_of("validate_sft"))
    assert (metrics["demonstrations_records"], metrics["prompts_records"]) == (7, 9)

    write_rows(artifacts.PROMPTS_HELD_OUT, [conversation("o", "Tell l of 2.")])
    assert exit_code(validate_sft.main) == ExitCode.BAD_INPUT
    assert "prompts: no text occurs twice, within or across splits: 2 records" in capsys.readouterr().err

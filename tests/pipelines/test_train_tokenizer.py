"""The tokenizer stage: trains on the corpus from scratch, passes a base model's on otherwise, reports both."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from pipelines import train_tokenizer
from pipelines.core import artifacts
from pipelines.core.errors import ExitCode
from pipelines.core.jsonl import Row, read_json, write_json, write_rows
from pipelines.model.tokenizer import CHAT_TEMPLATE, encode_documents
from pipelines.train_tokenizer import corpus_texts, gpt2_tokenizer
from tests.models import make_policy
from tests.pipelines.in_process import enter_workspace, exit_code

SENTENCES = ["The river is wide.", "A ship sails on the river.", "The sea is deep and the ship is small."]


def corpus() -> Iterator[Row]:
    for number in range(60):
        text = " ".join(SENTENCES[(number + shift) % 3] for shift in range(4)) + f" Page {number}."
        yield {"id": str(number), "text": text, "source": "test", "license": "CC0", "metadata": {}}


def enter(folder: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str]) -> None:
    enter_workspace(folder, monkeypatch, overrides)
    write_rows(artifacts.CORPUS_TRAIN, corpus())
    write_rows(artifacts.CORPUS_HELD_OUT, list(corpus())[:5])


def test_from_scratch_it_learns_the_words_of_the_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(tmp_path, monkeypatch, ["train_tokenizer.vocabulary=320"])
    assert exit_code(train_tokenizer.main) == 0
    tokenizer = PreTrainedTokenizerFast.from_pretrained(artifacts.TRAIN_TOKENIZER)
    assert len(encode_documents(tokenizer, [" river ship"])[0]) == 2
    assert tokenizer.chat_template == CHAT_TEMPLATE.read_text()
    metrics = read_json(artifacts.metrics_of("train_tokenizer"))
    assert metrics["passed_through"] == 0
    assert metrics["trained_bytes_per_token"] > 2
    assert "gpt2_tokens" not in metrics
    assert "run ingest again" in read_json(artifacts.TOKENIZER_REPORT)["not_at_hand"]["gpt2"]
    assert "| gpt2                  | not at hand: " in artifacts.TOKENIZER_CARD.read_text()


def test_gpt2s_tokenizer_is_measured_on_the_same_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    enter(tmp_path, monkeypatch, ["train_tokenizer.vocabulary=320"])
    write_json(artifacts.INGEST_GPT2_TOKENIZER / "origin.json", {"source": None, "not_at_hand": None})
    lines = [f"{base64.b64encode(bytes([byte])).decode()} {byte}\n" for byte in range(256)]
    (artifacts.INGEST_GPT2_TOKENIZER / "gpt2.tiktoken").write_text("".join(lines))
    assert exit_code(train_tokenizer.main) == 0
    metrics = read_json(artifacts.metrics_of("train_tokenizer"))
    assert metrics["gpt2_bytes"] == metrics["gpt2_tokens"] == metrics["trained_bytes"]
    assert read_json(artifacts.TOKENIZER_REPORT)["held_out"]["gpt2"]["bytes_per_token"] == 1
    shown = capsys.readouterr().out
    assert artifacts.TOKENIZER_CARD.read_text() in shown
    assert "| trained (used)        | " in shown
    assert "| gpt2                  |        257 |" in shown


def test_gpt2s_tokenizer_may_be_a_hugging_face_folder(tmp_path: Path) -> None:
    theirs = PreTrainedTokenizerFast.from_pretrained(make_policy(tmp_path))
    write_json(tmp_path / "origin.json", {"source": None, "not_at_hand": None})
    assert gpt2_tokenizer(tmp_path).get_vocab() == theirs.get_vocab()


def test_a_base_models_tokenizer_is_passed_on_with_our_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter(tmp_path, monkeypatch, ["base_model={kind: folder, path: /elsewhere, sha256: null}"])
    base = PreTrainedTokenizerFast.from_pretrained(make_policy(artifacts.INGEST_BASE_MODEL))
    base.chat_template = "theirs"
    base.save_pretrained(artifacts.INGEST_BASE_MODEL)
    assert exit_code(train_tokenizer.main) == 0
    ours = PreTrainedTokenizerFast.from_pretrained(artifacts.TRAIN_TOKENIZER)
    assert ours.get_vocab() == base.get_vocab()
    assert ours.chat_template == CHAT_TEMPLATE.read_text()
    metrics = read_json(artifacts.metrics_of("train_tokenizer"))
    assert metrics["passed_through"] == 1
    assert metrics["base_model_bytes"] == metrics["trained_bytes"]
    assert metrics["base_model_bytes_per_token"] < metrics["trained_bytes_per_token"]


def test_a_base_model_that_is_not_there_is_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    enter(tmp_path, monkeypatch, ["base_model={kind: folder, path: /elsewhere, sha256: null}"])
    assert exit_code(train_tokenizer.main) == ExitCode.BAD_INPUT
    assert "must hold one GGUF file or one Hugging Face folder" in capsys.readouterr().err


@pytest.mark.parametrize(("megabytes", "texts"), [(1e-6, 1), (2e-6, 1), (3e-6, 2), (1.0, 3)])
def test_texts_are_taken_until_the_limit_is_reached(tmp_path: Path, megabytes: float, texts: int) -> None:
    write_rows(tmp_path / "corpus.jsonl", [{"text": "é"}] * 3)
    assert len(list(corpus_texts(tmp_path / "corpus.jsonl", megabytes))) == texts

"""The tokenizer stage: trains on the corpus from scratch, passes a base model's on otherwise, reports both."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from pipelines.core import artifacts
from pipelines.core.jsonl import Row, read_json, write_rows
from pipelines.model.tokenizer import CHAT_TEMPLATE, encode_documents
from pipelines.train_tokenizer import corpus_texts
from tests.models import make_policy
from tests.workspaces import make_workspace, run_stage

SENTENCES = ["The river is wide.", "A ship sails on the river.", "The sea is deep and the ship is small."]


def corpus() -> Iterator[Row]:
    for number in range(60):
        text = " ".join(SENTENCES[(number + shift) % 3] for shift in range(4)) + f" Page {number}."
        yield {"id": str(number), "text": text, "source": "test", "license": "CC0", "metadata": {}}


def workspace_with_corpus(folder: Path, overrides: list[str]) -> Path:
    workspace = make_workspace(folder, overrides)
    write_rows(workspace / artifacts.CORPUS_TRAIN, corpus())
    write_rows(workspace / artifacts.CORPUS_HELD_OUT, list(corpus())[:5])
    return workspace


def test_from_scratch_it_learns_the_words_of_the_corpus(tmp_path: Path) -> None:
    workspace = workspace_with_corpus(tmp_path, ["train_tokenizer.vocabulary=320"])
    done = run_stage(workspace, "pipelines.train_tokenizer")
    assert done.returncode == 0, done.stderr
    tokenizer = PreTrainedTokenizerFast.from_pretrained(workspace / artifacts.TRAIN_TOKENIZER)
    assert len(encode_documents(tokenizer, [" river ship"])[0]) == 2
    assert tokenizer.chat_template == CHAT_TEMPLATE.read_text()
    metrics = read_json(workspace / artifacts.metrics_of("train_tokenizer"))
    assert metrics["passed_through"] == 0
    assert metrics["trained_bytes_per_token"] > 2


def test_a_base_models_tokenizer_is_passed_on_with_our_template(tmp_path: Path) -> None:
    workspace = workspace_with_corpus(tmp_path, ["base_model={kind: folder, path: /elsewhere}"])
    base = make_policy(workspace / artifacts.INGEST_BASE_MODEL)
    done = run_stage(workspace, "pipelines.train_tokenizer")
    assert done.returncode == 0, done.stderr
    ours = PreTrainedTokenizerFast.from_pretrained(workspace / artifacts.TRAIN_TOKENIZER)
    assert ours.get_vocab() == PreTrainedTokenizerFast.from_pretrained(base).get_vocab()
    assert ours.chat_template == CHAT_TEMPLATE.read_text()
    metrics = read_json(workspace / artifacts.metrics_of("train_tokenizer"))
    assert metrics["passed_through"] == 1
    assert metrics["base_model_bytes"] == metrics["trained_bytes"]
    assert metrics["base_model_bytes_per_token"] < metrics["trained_bytes_per_token"]


def test_a_base_model_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    workspace = workspace_with_corpus(tmp_path, ["base_model={kind: folder, path: /elsewhere}"])
    done = run_stage(workspace, "pipelines.train_tokenizer")
    assert done.returncode == 65
    assert "must hold one GGUF file or one Hugging Face folder" in done.stderr


@pytest.mark.parametrize(("megabytes", "texts"), [(1e-6, 1), (2e-6, 1), (3e-6, 2), (1.0, 3)])
def test_texts_are_taken_until_the_limit_is_reached(tmp_path: Path, megabytes: float, texts: int) -> None:
    write_rows(tmp_path / "corpus.jsonl", [{"text": "é"}] * 3)
    assert len(list(corpus_texts(tmp_path / "corpus.jsonl", megabytes))) == texts

"""The tokenizing stage: shards decode to the corpus, sizes add up, an empty corpus is refused."""

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from pipelines import tokenize_corpus
from pipelines.core import artifacts
from pipelines.core.errors import ExitCode
from pipelines.core.jsonl import Row, read_json, write_rows
from pipelines.data.shards import ShardManifest, open_shard
from pipelines.model.tokenizer import train_bpe
from tests.models import TEXTS
from tests.pipelines.in_process import enter_workspace, exit_code

TRAIN = ["First document.", "Zweites Dökument\n\nwith two paragraphs.", "It spells <|endoftext|> out."]
HELD_OUT = ["Never trained on."]


def rows(texts: list[str]) -> list[Row]:
    return [{"id": text, "text": text, "source": "test", "license": "CC0", "metadata": {}} for text in texts]


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    return train_bpe(TEXTS, 300)


def enter(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerBase, held_out: list[str]
) -> None:
    enter_workspace(folder, monkeypatch)
    tokenizer.save_pretrained(artifacts.TRAIN_TOKENIZER)
    write_rows(artifacts.CORPUS_TRAIN, rows(TRAIN))
    write_rows(artifacts.CORPUS_HELD_OUT, rows(held_out))


def test_shards_decode_to_the_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerBase
) -> None:
    enter(tmp_path, monkeypatch, tokenizer, HELD_OUT)
    assert exit_code(tokenize_corpus.main) == 0
    manifest = ShardManifest.read(artifacts.TOKENS_MANIFEST)
    tokens = open_shard(artifacts.TOKENIZE_CORPUS, manifest.train, manifest.dtype).tolist()
    documents: list[list[int]] = [[]]
    for token in tokens:
        if token == manifest.end_token:
            documents.append([])
        else:
            documents[-1].append(token)
    assert [tokenizer.decode(ids) for ids in documents] == [*TRAIN, ""]
    assert manifest.train.bytes == sum(len(text.encode()) for text in TRAIN)
    metrics = read_json(artifacts.metrics_of("tokenize_corpus"))
    assert (metrics["train_tokens"], metrics["held_out_documents"]) == (len(tokens), 1)


def test_an_empty_held_out_part_is_bad_input(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tokenizer: PreTrainedTokenizerBase,
    capsys: pytest.CaptureFixture[str],
) -> None:
    enter(tmp_path, monkeypatch, tokenizer, [])
    assert exit_code(tokenize_corpus.main) == ExitCode.BAD_INPUT
    assert "0 held-out documents" in capsys.readouterr().err

"""The tokenizing stage: shards decode to the corpus, sizes add up, an empty corpus is refused."""

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from pipelines.core import artifacts
from pipelines.core.jsonl import Row, read_json, write_rows
from pipelines.data.shards import ShardManifest, open_shard
from pipelines.model.tokenizer import train_bpe
from tests.models import TEXTS
from tests.workspaces import make_workspace, run_stage

TRAIN = ["First document.", "Zweites Dökument\n\nwith two paragraphs.", "It spells <|endoftext|> out."]
HELD_OUT = ["Never trained on."]


def rows(texts: list[str]) -> list[Row]:
    return [{"id": text, "text": text, "source": "test", "license": "CC0", "metadata": {}} for text in texts]


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    return train_bpe(TEXTS, 300)


def make(folder: Path, tokenizer: PreTrainedTokenizerBase, held_out: list[str], overrides: list[str]) -> Path:
    workspace = make_workspace(folder, overrides)
    tokenizer.save_pretrained(workspace / artifacts.TRAIN_TOKENIZER)
    write_rows(workspace / artifacts.CORPUS_TRAIN, rows(TRAIN))
    write_rows(workspace / artifacts.CORPUS_HELD_OUT, rows(held_out))
    return workspace


def test_shards_decode_to_the_corpus(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    workspace = make(tmp_path, tokenizer, HELD_OUT, [])
    done = run_stage(workspace, "pipelines.tokenize_corpus")
    assert done.returncode == 0, done.stderr
    manifest = ShardManifest.read(workspace / artifacts.TOKENS_MANIFEST)
    tokens = open_shard(workspace / artifacts.TOKENIZE_CORPUS, manifest.train, manifest.dtype).tolist()
    documents: list[list[int]] = [[]]
    for token in tokens:
        if token == manifest.end_token:
            documents.append([])
        else:
            documents[-1].append(token)
    assert [tokenizer.decode(ids) for ids in documents] == [*TRAIN, ""]
    assert manifest.train.bytes == sum(len(text.encode()) for text in TRAIN)
    metrics = read_json(workspace / artifacts.metrics_of("tokenize_corpus"))
    assert (metrics["train_tokens"], metrics["held_out_documents"]) == (len(tokens), 1)


def test_an_empty_held_out_part_is_bad_input(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    done = run_stage(make(tmp_path, tokenizer, [], ["tokenize_corpus.max_tokens=30"]), "pipelines.tokenize_corpus")
    assert done.returncode == 65
    assert "0 held-out documents" in done.stderr

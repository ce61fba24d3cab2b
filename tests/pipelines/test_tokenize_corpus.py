"""The tokenizing stage: shards decode to the corpus, sizes add up, a kill costs no complete shard, empty is refused."""

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from pipelines import tokenize_corpus
from pipelines.core import artifacts
from pipelines.core.errors import ExitCode
from pipelines.core.jsonl import Row, read_json, write_rows
from pipelines.data.shards import ShardManifest, open_tokens
from pipelines.model.tokenizer import train_bpe
from tests.models import TEXTS
from tests.pipelines.in_process import enter_workspace, exit_code
from tests.workspaces import kill_stage, make_workspace, run_stage

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
    tokens = open_tokens(artifacts.TOKENIZE_CORPUS, manifest.train, manifest.dtype)[:].tolist()
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
    size = f"3 | {len(tokens):,} | {manifest.train.bytes:,}"
    text = artifacts.TOKENS_CARD.read_text()
    assert f"| train | all | 1 | {size} |" in text
    assert f"| train | test |  | {size} |" in text


def outputs(workspace: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (workspace / artifacts.TOKENIZE_CORPUS).iterdir()}


def test_a_killed_run_goes_on_after_its_last_complete_shard(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    texts = [f"Number {number}. " + " ".join(TEXTS) * 5 for number in range(3000)]
    undisturbed, killed = (
        make_workspace(tmp_path / name, ["tokenize_corpus.shard_tokens=20000"]) for name in ("undisturbed", "killed")
    )
    for workspace in (undisturbed, killed):
        tokenizer.save_pretrained(workspace / artifacts.TRAIN_TOKENIZER)
        write_rows(workspace / artifacts.CORPUS_TRAIN, rows(texts))
        write_rows(workspace / artifacts.CORPUS_HELD_OUT, rows(HELD_OUT))
    done = run_stage(undisturbed, "pipelines.tokenize_corpus")
    assert done.returncode == 0, done.stderr
    assert len(outputs(undisturbed)) > 10

    def records() -> list[Path]:
        return sorted(killed.glob(".run/work/tokenize_corpus/*/train-*.json"))

    kill_stage(killed, "pipelines.tokenize_corpus", lambda: len(records()) > 2)
    left = {path.with_suffix(".bin").name: path.with_suffix(".bin").stat().st_ino for path in records()}
    assert len(outputs(undisturbed)) - 3 > len(left)
    done = run_stage(killed, "pipelines.tokenize_corpus")
    assert done.returncode == 0, done.stderr
    assert outputs(killed) == outputs(undisturbed)
    for name, inode in left.items():
        assert (killed / artifacts.TOKENIZE_CORPUS / name).stat().st_ino == inode
    assert not (killed / ".run" / "work" / "tokenize_corpus").exists()


def test_an_empty_held_out_part_is_bad_input(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tokenizer: PreTrainedTokenizerBase,
    capsys: pytest.CaptureFixture[str],
) -> None:
    enter(tmp_path, monkeypatch, tokenizer, [])
    assert exit_code(tokenize_corpus.main) == ExitCode.BAD_INPUT
    assert "0 held-out documents" in capsys.readouterr().err

"""A BPE in OpenAI's format becomes a tokenizer that merges by rank and splits as GPT-2 does."""

import base64
from pathlib import Path

import pytest

from pipelines.core.errors import BadInput
from pipelines.model.bpe_ranks import load_ranks, merged_pair, read_ranks
from pipelines.model.tokenizer import encode_documents

WORDS = [b"he", b"ll", b"hell", b"hello", b" w", b"\xe2\x82", b"\xe2\x82\xac"]
RANKS = {token: rank for rank, token in enumerate([*(bytes([byte]) for byte in range(256)), *WORDS])}


def write_ranks(path: Path, ranks: dict[bytes, int]) -> Path:
    path.write_text("".join(f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items()))
    return path


def test_a_token_is_split_where_training_merged_it() -> None:
    assert merged_pair(b"he", RANKS) == (b"h", b"e")
    assert merged_pair(b"hell", RANKS) == (b"he", b"ll")
    assert merged_pair(b"hello", RANKS) == (b"hell", b"o")


def test_texts_are_merged_by_rank_and_come_back(tmp_path: Path) -> None:
    tokenizer = load_ranks(write_ranks(tmp_path / "some.tiktoken", RANKS))
    assert len(tokenizer) == len(RANKS) + 1  # the end of a text
    text = "hello wall 12\n€é"
    [ids] = encode_documents(tokenizer, [text])
    expected = [b"hello", b" w", b"a", b"ll", b" ", b"1", b"2", b"\n", b"\xe2\x82\xac", b"\xc3", b"\xa9"]
    assert ids == [RANKS[token] for token in expected]
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("content", ["{}", "IQ== one", "*** 1"])
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "some.tiktoken"
    path.write_text(content)
    with pytest.raises(BadInput, match="is no file of tokens and ranks"):
        read_ranks(path)


def test_a_byte_without_a_token_is_refused(tmp_path: Path) -> None:
    ranks = {token: rank for token, rank in RANKS.items() if token != b"a"}
    with pytest.raises(BadInput, match="no token for 1 of 256 bytes"):
        read_ranks(write_ranks(tmp_path / "some.tiktoken", ranks))

"""Token shards: what is written is read back, windows overlap by one token, batches visit every window once."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.core.errors import BadInput
from pipelines.data.shards import (
    Shard,
    ShardManifest,
    TokenizedDocument,
    batch_windows,
    open_shard,
    token_dtype,
    window,
    window_count,
    write_shard,
)


def document(*ids: int) -> TokenizedDocument:
    return TokenizedDocument(list(ids), bytes=3 * len(ids))


@pytest.mark.parametrize("vocabulary", [300, 70_000])
def test_documents_end_with_the_end_token(tmp_path: Path, vocabulary: int) -> None:
    last = vocabulary - 1
    documents = [document(5, last), document(), document(7)]
    shard = write_shard(tmp_path / "train.bin", documents, vocabulary, end_token=0, max_tokens=100)
    assert shard == Shard("train.bin", tokens=6, documents=3, bytes=9)
    tokens = open_shard(tmp_path, shard, token_dtype(vocabulary).str)
    assert tokens.tolist() == [5, last, 0, 0, 7, 0]
    assert not tokens.flags.writeable


@pytest.mark.parametrize(("vocabulary", "size"), [(65_536, 2), (65_537, 4)])
def test_ids_take_the_narrowest_type(vocabulary: int, size: int) -> None:
    assert token_dtype(vocabulary).itemsize == size


def test_a_document_that_would_pass_the_limit_is_left_out_whole(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "train.bin", [document(1, 2), document(3, 4), document(5)], 300, 0, max_tokens=5)
    assert (shard.tokens, shard.documents) == (3, 1)


def test_windows_share_one_token_and_stay_inside() -> None:
    tokens = np.arange(11, dtype=np.uint16)
    assert window_count(len(tokens), 5) == 2
    assert window(tokens, 0, 5).tolist() == [0, 1, 2, 3, 4, 5]
    assert window(tokens, 1, 5).tolist() == [5, 6, 7, 8, 9, 10]
    assert window_count(10, 5) == 1
    assert window_count(0, 5) == 0


def test_an_epoch_visits_every_window_once_and_the_next_in_another_order() -> None:
    visited = np.concatenate([batch_windows(10, step, 4, seed=1) for step in range(5)]).tolist()
    assert sorted(visited[:10]) == sorted(visited[10:]) == list(range(10))
    assert visited[:10] != visited[10:]


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    assert batch_windows(50, 7, 4, seed=1).tolist() == batch_windows(50, 7, 4, seed=1).tolist()
    assert batch_windows(50, 7, 4, seed=1).tolist() != batch_windows(50, 7, 4, seed=2).tolist()


def test_a_manifest_is_checked_against_its_files(tmp_path: Path) -> None:
    shards = [write_shard(tmp_path / name, [document(1, 2, 3)], 300, 0, 100) for name in ("train.bin", "held_out.bin")]
    manifest = ShardManifest("<u2", 300, 0, *shards)
    manifest.write(tmp_path / "manifest.json")
    assert ShardManifest.read(tmp_path / "manifest.json") == manifest
    (tmp_path / "held_out.bin").write_bytes(b"\0\0")
    with pytest.raises(BadInput, match=r"held_out\.bin has 2 bytes"):
        ShardManifest.read(tmp_path / "manifest.json")

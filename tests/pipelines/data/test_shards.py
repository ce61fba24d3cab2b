"""Token shards: what is written is read back as one stream, windows overlap by one token, batches visit each once."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipelines.core.errors import BadInput
from pipelines.data.shards import (
    ShardManifest,
    Split,
    TokenizedDocument,
    TokenStream,
    batch_windows,
    open_tokens,
    token_dtype,
    window,
    window_count,
    write_split,
)


def document(*ids: int, source: str = "mine") -> TokenizedDocument:
    return TokenizedDocument(list(ids), 3 * len(ids), source)


def write(
    folder: Path, documents: list[TokenizedDocument], vocabulary: int = 300, most: int = 100, shard: int = 100
) -> Split:
    def after(skip: int) -> Iterator[TokenizedDocument]:
        return iter(documents[skip:])

    return write_split(folder, "train", after, vocabulary, end_token=0, max_tokens=most, shard_tokens=shard)


@pytest.mark.parametrize("vocabulary", [300, 70_000])
def test_documents_end_with_the_end_token(tmp_path: Path, vocabulary: int) -> None:
    last = vocabulary - 1
    split = write(tmp_path, [document(5, last), document(), document(7, source="theirs")], vocabulary)
    assert (split.tokens, split.documents, split.bytes) == (6, 3, 9)
    assert split.sources == {
        "mine": {"documents": 2, "tokens": 4, "bytes": 6},
        "theirs": {"documents": 1, "tokens": 2, "bytes": 3},
    }
    tokens = open_tokens(tmp_path, split, token_dtype(vocabulary).str)
    assert tokens[:].tolist() == [5, last, 0, 0, 7, 0]
    assert not tokens[:].flags.writeable


@pytest.mark.parametrize(("vocabulary", "size"), [(65_536, 2), (65_537, 4)])
def test_ids_take_the_narrowest_type(vocabulary: int, size: int) -> None:
    assert token_dtype(vocabulary).itemsize == size


def test_a_document_that_would_pass_the_limit_is_left_out_whole(tmp_path: Path) -> None:
    split = write(tmp_path, [document(1, 2), document(3, 4), document(5)], most=5)
    assert (split.tokens, split.documents) == (3, 1)


def test_a_shard_ends_with_the_document_that_fills_it(tmp_path: Path) -> None:
    split = write(tmp_path, [document(1, 2), document(3), document(4), document(5, 6, 7, 8, 9)], shard=4)
    assert [(shard.file, shard.tokens, shard.documents) for shard in split.shards] == [
        ("train-00000.bin", 5, 2),
        ("train-00001.bin", 8, 2),
    ]
    assert open_tokens(tmp_path, split, "<u2")[:].tolist() == [1, 2, 0, 3, 0, 4, 0, 5, 6, 7, 8, 9, 0]


@pytest.mark.parametrize("most", [7, 100])
def test_what_a_killed_run_left_complete_is_kept_and_the_rest_is_the_same(tmp_path: Path, most: int) -> None:
    documents = [document(*range(1, 2 + number % 3)) for number in range(9)]
    whole = write(tmp_path / "whole", documents, most=most, shard=4)
    part = write(tmp_path / "part", documents, most=most, shard=4)
    first = tmp_path / "part" / "train-00000.bin"
    before = first.stat().st_mtime_ns
    for shard in part.shards[1:]:  # as if killed while the second was written
        (tmp_path / "part" / shard.file).with_suffix(".json").unlink()
        (tmp_path / "part" / shard.file).write_bytes(b"half")
    assert write(tmp_path / "part", documents, most=most, shard=4) == whole
    assert first.stat().st_mtime_ns == before
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "part" / path.name).read_bytes() == path.read_bytes()


def test_a_stream_of_shards_reads_like_one_array() -> None:
    whole = np.arange(11, dtype=np.uint16)
    stream = TokenStream([whole[:3], whole[3:4], whole[4:9], whole[9:]])
    assert len(stream) == 11
    for start in range(13):
        for stop in range(13):
            assert stream[start:stop].tolist() == whole[start:stop].tolist(), (start, stop)
    assert stream[-4:].tolist() == whole[-4:].tolist()
    for index in range(window_count(11, 3)):
        assert window(stream, index, 3).tolist() == window(whole, index, 3).tolist()


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
    split = write(tmp_path, [document(1, 2, 3), document(4)], shard=4)
    manifest = ShardManifest("<u2", 300, 0, split, split)
    manifest.write(tmp_path / "manifest.json")
    assert ShardManifest.read(tmp_path / "manifest.json") == manifest
    (tmp_path / "train-00001.bin").write_bytes(b"\0\0")
    with pytest.raises(BadInput, match=r"train-00001\.bin has 2 bytes"):
        ShardManifest.read(tmp_path / "manifest.json")

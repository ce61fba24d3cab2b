"""Token shards: flat little-endian files of token ids that training maps into memory, and the windows cut from them.

The shards of a split are one stream of tokens: a window may begin in one shard and end in the next.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_json, write_json

Sizes = dict[str, dict[str, int]]  # of each source: {documents, tokens, bytes}


def token_dtype(vocabulary: int) -> np.dtype:
    """The narrowest of uint16 and uint32 that holds every id below `vocabulary`."""
    return np.dtype("<u2") if vocabulary <= 1 << 16 else np.dtype("<u4")


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of token ids: documents one after the other, each followed by the end token."""

    file: str
    tokens: int
    documents: int
    bytes: int  # of the documents' text in UTF-8, which makes losses comparable between tokenizers
    sources: Sizes


@dataclass(frozen=True, slots=True)
class Split:
    """The shards of one split of the corpus, in order."""

    shards: tuple[Shard, ...]

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Self:
        return cls(tuple(Shard(**shard) for shard in row["shards"]))

    @property
    def tokens(self) -> int:
        return sum(shard.tokens for shard in self.shards)

    @property
    def documents(self) -> int:
        return sum(shard.documents for shard in self.shards)

    @property
    def bytes(self) -> int:
        return sum(shard.bytes for shard in self.shards)

    @property
    def sources(self) -> Sizes:
        """What each source has in all shards, by name."""
        totals: Sizes = {}
        for shard in self.shards:
            for source, size in shard.sources.items():
                total = totals.setdefault(source, dict.fromkeys(size, 0))
                for name, value in size.items():
                    total[name] += value
        return dict(sorted(totals.items()))


@dataclass(frozen=True, slots=True)
class ShardManifest:
    """What the shards of one tokenized corpus hold; written last, so that it says they are complete."""

    dtype: str
    vocabulary: int
    end_token: int
    train: Split
    held_out: Split

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a manifest and check it against the files beside it.

        Raises:
            BadInput: a shard is missing or has another size than the manifest says.
        """
        values = read_json(path)
        manifest = cls(**values | {split: Split.from_row(values[split]) for split in ("train", "held_out")})
        for shard in (*manifest.train.shards, *manifest.held_out.shards):
            file = path.parent / shard.file
            size = file.stat().st_size if file.exists() else -1
            expected = shard.tokens * np.dtype(manifest.dtype).itemsize
            if size != expected:
                raise BadInput(f"{file} has {size} bytes, {path} says {expected}; run tokenize_corpus again")
        return manifest

    def write(self, path: Path) -> None:
        write_json(path, asdict(self))


@dataclass(frozen=True, slots=True)
class TokenizedDocument:
    """One document's ids, without the end token, the size of its text, and where it came from."""

    ids: list[int]
    bytes: int
    source: str


def write_shard(
    path: Path, documents: Iterable[TokenizedDocument], dtype: np.dtype, end_token: int, shard_tokens: int
) -> Shard | None:
    """Write whole documents up to and with the one that fills `shard_tokens`; None when there are no documents."""
    sources: Sizes = defaultdict(lambda: {"documents": 0, "tokens": 0, "bytes": 0})
    tokens = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as out:
        for document in documents:
            out.write(np.array([*document.ids, end_token], dtype=dtype).tobytes())
            size = sources[document.source]
            size["documents"] += 1
            size["tokens"] += len(document.ids) + 1
            size["bytes"] += document.bytes
            tokens += len(document.ids) + 1
            if tokens >= shard_tokens:
                break
        out.flush()
        os.fsync(out.fileno())  # what says that the shard is complete must not outlive it
    if not tokens:
        partial.unlink()
        return None
    partial.replace(path)
    totals = {name: sum(size[name] for size in sources.values()) for name in ("tokens", "documents", "bytes")}
    return Shard(path.name, sources=dict(sources), **totals)


def complete_shards(folder: Path, split: str, dtype: np.dtype) -> list[Shard]:
    """The shards of `split` from the first on that a killed run has left complete, each told by its .json file."""
    shards: list[Shard] = []
    while (record := folder / f"{split}-{len(shards):05d}.json").exists():
        shard = Shard(**read_json(record))
        file = folder / shard.file
        if not file.exists() or file.stat().st_size != shard.tokens * dtype.itemsize:
            break
        shards.append(shard)
    return shards


def write_split(
    folder: Path,
    split: str,
    documents_after: Callable[[int], Iterator[TokenizedDocument]],
    vocabulary: int,
    end_token: int,
    max_tokens: int,
    shard_tokens: int,
) -> Split:
    """Write `<split>-<number>.bin` until the next document would pass `max_tokens`; the first is always written.

    Goes on after the shards that are complete in `folder`: what is written is the same however often it was killed.

    Args:
        documents_after: gives the documents without the first n.
    """
    dtype = token_dtype(vocabulary)
    shards = complete_shards(folder, split, dtype)
    done = Split(tuple(shards))
    documents = within(documents_after(done.documents), done.tokens, max_tokens)
    while shard := write_shard(folder / f"{split}-{len(shards):05d}.bin", documents, dtype, end_token, shard_tokens):
        write_json(folder / f"{split}-{len(shards):05d}.json", asdict(shard))
        shards.append(shard)
    return Split(tuple(shards))


def within(documents: Iterable[TokenizedDocument], tokens: int, max_tokens: int) -> Iterator[TokenizedDocument]:
    """The documents that fit into `max_tokens` after the first `tokens`; one fits always."""
    for document in documents:
        if tokens and tokens + len(document.ids) + 1 > max_tokens:
            return
        tokens += len(document.ids) + 1
        yield document


class TokenStream:
    """Several arrays of token ids, read like one; a slice that crosses a border is put together from both sides."""

    def __init__(self, parts: Sequence[NDArray[Any]]) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, wanted: slice) -> NDArray[Any]:
        start, stop, stride = wanted.indices(len(self))
        assert stride == 1, "a stream is read in order"
        first = min(int(np.searchsorted(self._starts, start, side="right")), len(self._parts)) - 1
        last = max(int(np.searchsorted(self._starts, stop, side="left")), first + 1)
        pieces = [
            part[max(0, start - begin) : max(0, stop - begin)]
            for part, begin in zip(self._parts[first:last], self._starts[first:last].tolist(), strict=True)
        ]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


Tokens = NDArray[np.uint16] | NDArray[np.uint32] | TokenStream


def open_tokens(folder: Path, split: Split, dtype: str) -> TokenStream:
    """The token ids of a split as one stream, mapped into memory, read-only."""
    return TokenStream(
        [
            np.memmap(folder / shard.file, dtype=np.dtype(dtype), mode="r", shape=(shard.tokens,))
            for shard in split.shards
        ]
    )


def window_count(tokens: int, length: int) -> int:
    """How many windows of `length` inputs, each with the token after it as last target, fit into `tokens`."""
    return max(0, (tokens - 1) // length)


def window(tokens: Tokens, index: int, length: int) -> NDArray[np.int64]:
    """Window `index`: `length` + 1 ids, of which the last is also the first of the next window."""
    return tokens[index * length : (index + 1) * length + 1].astype(np.int64)


@lru_cache(maxsize=2)
def _order(windows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(windows)


def batch_windows(windows: int, step: int, size: int, seed: int) -> NDArray[np.int64]:
    """The window numbers of batch `step` [size]: every epoch visits all windows once, in an order of its own.

    A function of its arguments alone, so that training can go on at any step.
    """
    positions = range(step * size, (step + 1) * size)
    return np.array([_order(windows, seed, position // windows)[position % windows] for position in positions])

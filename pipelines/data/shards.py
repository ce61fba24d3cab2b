"""Token shards: flat little-endian files of token ids that training maps into memory, and the windows cut from them."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_json, write_json

Tokens = NDArray[np.uint16] | NDArray[np.uint32]


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


@dataclass(frozen=True, slots=True)
class ShardManifest:
    """What the shards of one tokenized corpus hold; written last, so that it says they are complete."""

    dtype: str
    vocabulary: int
    end_token: int
    train: Shard
    held_out: Shard

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a manifest and check it against the files beside it.

        Raises:
            BadInput: a shard is missing or has another size than the manifest says.
        """
        values = read_json(path)
        manifest = cls(**values | {part: Shard(**values[part]) for part in ("train", "held_out")})
        for shard in (manifest.train, manifest.held_out):
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
    """One document's ids, without the end token, and the size of its text."""

    ids: list[int]
    bytes: int


def write_shard(
    path: Path, documents: Iterable[TokenizedDocument], vocabulary: int, end_token: int, max_tokens: int
) -> Shard:
    """Write whole documents until the next one would pass `max_tokens`; the first is always written."""
    dtype = token_dtype(vocabulary)
    tokens = count = size = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as out:
        for document in documents:
            if count and tokens + len(document.ids) + 1 > max_tokens:
                break
            out.write(np.array([*document.ids, end_token], dtype=dtype).tobytes())
            tokens += len(document.ids) + 1
            size += document.bytes
            count += 1
    partial.replace(path)
    return Shard(path.name, tokens, count, size)


def open_shard(folder: Path, shard: Shard, dtype: str) -> Tokens:
    """The shard's token ids, mapped into memory, read-only."""
    return np.memmap(folder / shard.file, dtype=np.dtype(dtype), mode="r", shape=(shard.tokens,))


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

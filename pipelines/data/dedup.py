"""Exact and near duplicates, within and across sources: the first one stays.

Near duplicates are found by MinHash (Broder 1997) with locality-sensitive hashing: signatures are cut into bands, and
documents that share a band are compared by the share of equal entries, which estimates the Jaccard similarity of their
word 5-gram sets. Fingerprints lie in files and bands are sorted one after the other, so that memory grows by a few
bytes a document.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.data.ngrams import Hashes, mixed, ngram_hashes, row_hashes, word_hashes, words

SHINGLE_WORDS = 5
PERMUTATIONS = 128
_BLOCK = 1 << 14  # shingles hashed at a time: 16 MiB


class Bands(NamedTuple):
    """A signature is cut into `number` bands of `rows` entries."""

    number: int
    rows: int


def miss_probability(similarity: float, bands: Bands) -> float:
    """The chance that two documents of this Jaccard similarity share no band."""
    return float((1 - similarity**bands.rows) ** bands.number)


def choose_bands(similarity: float, max_miss: float = 0.02) -> Bands:
    """The bands with most rows, so with fewest needless comparisons, that miss at most `max_miss` at `similarity`."""
    for rows in range(PERMUTATIONS, 0, -1):
        bands = Bands(PERMUTATIONS // rows, rows)
        if miss_probability(similarity, bands) <= max_miss:
            return bands
    return Bands(PERMUTATIONS, 1)


class MinHash:
    """Signatures of texts under one seed."""

    def __init__(self, seed: int) -> None:
        generator = np.random.default_rng(seed)
        self._keys = generator.integers(0, 2**64, PERMUTATIONS, dtype=np.uint64)

    def signature(self, text: str) -> NDArray[np.uint32]:
        """The smallest hash of the text's shingles under each permutation [PERMUTATIONS]."""
        hashes = word_hashes(text)
        shingles = np.unique(ngram_hashes(hashes, min(SHINGLE_WORDS, max(len(hashes), 1))))
        smallest = np.full(PERMUTATIONS, np.iinfo(np.uint64).max, dtype=np.uint64)
        for start in range(0, len(shingles), _BLOCK):
            block: Hashes = mixed(shingles[start : start + _BLOCK, None] ^ self._keys)
            smallest = np.minimum(smallest, block.min(axis=0))
        return (smallest >> np.uint64(32)).astype(np.uint32)


class Fingerprints:
    """What duplicates are found by, collected document by document and written as two arrays."""

    def __init__(self, seed: int) -> None:
        self._minhash = MinHash(seed)
        self._digests: list[bytes] = []
        self._signatures: list[NDArray[np.uint32]] = []

    def add(self, text: str) -> None:
        self._digests.append(hashlib.blake2b("\n".join(words(text)).encode(), digest_size=16).digest())
        self._signatures.append(self._minhash.signature(text))

    def save(self, digests: Path, signatures: Path) -> None:
        """Write [n] digests of the words in their order and [n, PERMUTATIONS] signatures as .npy files."""
        np.save(digests, np.array(self._digests, dtype="V16"))
        np.save(signatures, np.array(self._signatures, dtype=np.uint32).reshape(-1, PERMUTATIONS))


def _repeats(keys: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs (earlier, later) of equal keys by position: each with the one before it and with the first of its kind."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    new = np.ones(len(keys), dtype=bool)
    new[1:] = ordered[1:] != ordered[:-1]
    first = order[np.maximum.accumulate(np.where(new, np.arange(len(keys)), 0))]
    later = ~new
    before = np.roll(order, 1)[later]
    return np.concatenate([before, first[later]]), np.concatenate([order[later], order[later]])


def exact_repeats(digests: NDArray[np.void]) -> NDArray[np.bool_]:
    """Which of the documents [n] has the words of an earlier one."""
    found = np.zeros(len(digests), dtype=bool)
    found[_repeats(digests.view("S16").reshape(-1))[1]] = True
    return found


def near_repeats(signatures: Sequence[NDArray[np.uint32]], similarity: float) -> NDArray[np.bool_]:
    """Which of the documents [n] is at least `similarity` to an earlier one, by the estimate of its signature.

    Args:
        signatures: parts [n_i, PERMUTATIONS] whose rows together are the documents; memory maps stay on disk.
    """
    bands = choose_bands(similarity)
    starts = np.cumsum([0, *(len(part) for part in signatures)])
    found = np.zeros(int(starts[-1]), dtype=bool)

    def rows(wanted: NDArray[np.int64]) -> NDArray[np.uint32]:
        part = np.searchsorted(starts, wanted, side="right") - 1
        taken = np.empty((len(wanted), PERMUTATIONS), dtype=np.uint32)
        for number in np.unique(part):
            here = part == number
            taken[here] = signatures[number][wanted[here] - starts[number]]
        return taken

    for band in range(bands.number):
        columns = slice(band * bands.rows, (band + 1) * bands.rows)
        keys = np.concatenate([row_hashes(part[:, columns]) for part in signatures])
        earlier, later = _repeats(keys)
        unknown = ~found[later]
        earlier, later = earlier[unknown], later[unknown]
        for start in range(0, len(later), _BLOCK):
            one, other = earlier[start : start + _BLOCK], later[start : start + _BLOCK]
            alike = (rows(one) == rows(other)).mean(axis=1) >= similarity
            found[other[alike]] = True
    return found

"""Exact and near duplicates, within and across sources: the first one stays.

Near duplicates are found by MinHash (Broder 1997) with locality-sensitive hashing: signatures are cut into bands, and
documents that share a band are compared by the share of equal entries, which estimates the Jaccard similarity of their
word 5-gram sets.
"""

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.core.records import Document
from pipelines.data.ngrams import Hashes, mixed, ngram_hashes, word_hashes, words
from pipelines.data.steps import Filter, Verdict

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


def exact_duplicate_filter() -> Filter:
    """Keep the first of documents with the same words in the same order."""
    seen: set[bytes] = set()

    def keep(document: Document) -> Verdict:
        digest = hashlib.sha256("\n".join(words(document.text)).encode()).digest()
        if digest in seen:
            return False, "same words as an earlier document"
        seen.add(digest)
        return True

    return keep


def near_duplicate_filter(similarity: float, seed: int) -> Filter:
    """Keep the first of documents whose estimated Jaccard similarity is at least `similarity`.

    Holds 512 bytes a document for signatures and one entry a band.
    """
    minhash = MinHash(seed)
    bands = choose_bands(similarity)
    signatures: list[NDArray[np.uint32]] = []
    buckets: dict[bytes, list[int]] = {}

    def keep(document: Document) -> Verdict:
        signature = minhash.signature(document.text)
        keys = [
            band.to_bytes(2, "big") + signature[band * bands.rows : (band + 1) * bands.rows].tobytes()
            for band in range(bands.number)
        ]
        candidates = {number for key in keys for number in buckets.get(key, ())}
        if any(float(np.mean(signatures[number] == signature)) >= similarity for number in candidates):
            return False, "near duplicate of an earlier document"
        for key in keys:
            buckets.setdefault(key, []).append(len(signatures))
        signatures.append(signature)
        return True

    return keep

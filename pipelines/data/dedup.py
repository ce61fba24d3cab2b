"""Exact and near duplicates, within and across sources: the first one stays.

Near duplicates are found by MinHash (Broder 1997) with locality-sensitive hashing: a text's signature is cut into
bands, and texts that share a band are compared by the share of equal entries, which estimates the Jaccard similarity J
of their sets of shingles (runs of k words).

Shingle, threshold and bands belong together. Changing a share p of the words leaves about (1 - p)^k of the shingles, so
an edited copy has J = (1 - p)^k / (2 - (1 - p)^k):

    words changed   k = 1   k = 2   k = 3   k = 5
         5 %         0.90    0.82    0.75    0.63
        10 %         0.82    0.68    0.57    0.42
        20 %         0.67    0.47    0.34    0.20

Longer shingles tell different texts on one subject apart, shorter ones forgive edits. With k = 3 a copy with a tenth of
its words changed stays far above texts that only share a subject, whose J is a few hundredths. The threshold that ships
is 0.4: four standard errors of the estimate, sqrt(J (1 - J) / 128) = 0.044, below 0.57. 42 bands of 3 entries meet with
probability 1 - (1 - J^3)^42: 0.9998 at J = 0.57, 0.94 at 0.4, 0.01 at 0.06.

Fingerprints lie in files and bands are sorted one after the other, so that memory grows by a few bytes a text.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from pipelines.core.records import Document
from pipelines.data.ngrams import ngram_hashes, word_hashes, words
from pipelines.data.steps import Filter, Verdict

SHINGLE_WORDS = 3
PERMUTATIONS = 128
BAND_ROWS = 3
BANDS = PERMUTATIONS // BAND_ROWS

Signature = NDArray[np.uint16]

_BLOCK = 1 << 14  # pairs compared at a time
_PLACES = np.array([1, 1 << 16, 1 << 32], dtype=np.uint64)  # of a band's entries in its key


def found_probability(similarity: float) -> float:
    """The chance that two texts of this Jaccard similarity share a band."""
    return float(1 - (1 - similarity**BAND_ROWS) ** BANDS)


def signature(text: str, seed: int) -> Signature:
    """Of each of rensa's minima over the text's shingles the low 16 bits, which agree by chance in 1 of 65,536.

    A text shorter than a shingle is one shingle.
    """
    hashes = word_hashes(text)
    shingles = np.unique(ngram_hashes(hashes, min(SHINGLE_WORDS, max(len(hashes), 1))))
    minima = RMinHash.digest_matrix_from_flat_token_hashes(shingles, [0, len(shingles)], PERMUTATIONS, seed).to_rows()
    return np.array(minima[0], dtype=np.uint32).astype(np.uint16)


class Fingerprints:
    """What duplicates are found by, collected document by document and written as two arrays."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._digests: list[bytes] = []
        self._signatures: list[Signature] = []

    def add(self, text: str) -> None:
        self._digests.append(hashlib.blake2b("\n".join(words(text)).encode(), digest_size=16).digest())
        self._signatures.append(signature(text, self._seed))

    def save(self, digests: Path, signatures: Path) -> None:
        """Write [n] digests of the words in their order and [n, PERMUTATIONS] signatures as .npy files."""
        np.save(digests, np.array(self._digests, dtype="V16"))
        np.save(signatures, np.array(self._signatures, dtype=np.uint16).reshape(-1, PERMUTATIONS))


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


def near_repeats(signatures: Sequence[Signature], similarity: float) -> NDArray[np.bool_]:
    """Which of the documents [n] is at least `similarity` to an earlier one, by the estimate of its signature.

    A document is compared with the one before it in each of its bands and with the first one there, so that boilerplate
    that thousands share costs no more than a chance agreement. Pairs under 0.4 seldom meet (`found_probability`).

    Args:
        signatures: parts [n_i, PERMUTATIONS] whose rows together are the documents; memory maps stay on disk.
    """
    starts = np.cumsum([0, *(len(part) for part in signatures)])
    found = np.zeros(int(starts[-1]), dtype=bool)

    def rows(wanted: NDArray[np.int64]) -> Signature:
        part = np.searchsorted(starts, wanted, side="right") - 1
        taken = np.empty((len(wanted), PERMUTATIONS), dtype=np.uint16)
        for number in np.unique(part):
            here = part == number
            taken[here] = signatures[number][wanted[here] - starts[number]]
        return taken

    for band in range(BANDS):
        columns = slice(band * BAND_ROWS, (band + 1) * BAND_ROWS)
        keys = np.concatenate([(part[:, columns] * _PLACES).sum(axis=1, dtype=np.uint64) for part in signatures])
        earlier, later = _repeats(keys)
        unknown = ~found[later]
        earlier, later = earlier[unknown], later[unknown]
        for start in range(0, len(later), _BLOCK):
            one, other = earlier[start : start + _BLOCK], later[start : start + _BLOCK]
            alike = (rows(one) == rows(other)).mean(axis=1) >= similarity
            found[other[alike]] = True
    return found


class Repeats(NamedTuple):
    """Which documents of a file [n] repeat an earlier one, of this or another file."""

    exact: NDArray[np.bool_]
    near: NDArray[np.bool_]


def repeats_filter(repeats: Repeats) -> Filter:
    """Drop the documents that `repeats` marks; it must see every document of the file, in order."""
    marks = zip(repeats.exact.tolist(), repeats.near.tolist(), strict=True)

    def keep(_document: Document) -> Verdict:
        exact, near = next(marks)
        if exact:
            return False, "same words as an earlier document"
        return (False, "near duplicate of an earlier document") if near else True

    return keep

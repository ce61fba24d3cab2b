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
"""

import hashlib

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from pipelines.core.records import Document
from pipelines.data.ngrams import Hashes, mixed, ngram_hashes, word_hashes, words
from pipelines.data.steps import Filter, Verdict

SHINGLE_WORDS = 3
PERMUTATIONS = 128
BAND_ROWS = 3
BANDS = PERMUTATIONS // BAND_ROWS

Signature = NDArray[np.uint16]

_FIRST_SLOTS = 1 << 16
_WINDOW = 8  # slots of a key looked at in one go
_BLOCK = 1 << 12  # texts hashed anew at a time
_NUMBER = np.uint64((1 << 32) - 1)  # the half of a slot that holds a text's number; the other half tells keys apart
_SALTS = mixed(np.arange(BANDS, dtype=np.uint64))
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


class SignatureIndex:
    """The signatures of texts, found again by their bands.

    A hash table with linear probing maps each band to the first text that has it, so a text has at most `BANDS`
    candidates, however many others share its boilerplate. Holds 1.2 to 2 KB a text.
    """

    def __init__(self) -> None:
        self._signatures: list[Signature] = []
        self._slots: Hashes = np.zeros(_FIRST_SLOTS, dtype=np.uint64)

    def similarity(self, wanted: Signature) -> float:
        """The highest share of entries that `wanted` has in common with a text that shares a band; 0 without one."""
        numbers = self._with_a_band_of(wanted)
        return max((float(np.mean(self._signatures[number] == wanted)) for number in numbers), default=0.0)

    def add(self, added: Signature) -> None:
        if 2 * BANDS * (len(self._signatures) + 1) > len(self._slots):
            self._grow()
        self._signatures.append(added)
        self._insert(self._signatures[-1:], len(self._signatures))

    def _with_a_band_of(self, wanted: Signature) -> set[int]:
        keys = _band_keys([wanted])
        found: set[int] = set()
        places = self._home(keys)
        while len(keys):
            entries = self._slots[self._window(places)]
            same = (entries != 0) & _same_key(entries, keys[:, None])
            found.update((entries[same] & _NUMBER).tolist())
            left = (entries != 0).all(axis=1) & ~same.any(axis=1)
            keys, places = keys[left], places[left] + _WINDOW
        return {number - 1 for number in found}

    def _insert(self, added: list[Signature], first_number: int) -> None:
        keys = _band_keys(added)
        numbers = np.repeat(np.arange(first_number, first_number + len(added), dtype=np.uint64), BANDS)
        entries, places = (keys & ~_NUMBER) | numbers, self._home(keys)
        while len(entries):
            window = self._window(places)
            found = self._slots[window]
            usable = (found == 0) | _same_key(found, entries[:, None])
            first = usable.argmax(axis=1)[:, None]
            slots = np.take_along_axis(window, first, axis=1)[:, 0]
            free = self._slots[slots] == 0
            self._slots[slots[free]] = entries[free]
            left = ~_same_key(self._slots[slots], entries)  # no room in the window, or two keys wanted one slot
            entries, places = entries[left], np.where(usable.any(axis=1), places, places + _WINDOW)[left]

    def _grow(self) -> None:
        self._slots = np.zeros(2 * len(self._slots), dtype=np.uint64)
        for start in range(0, len(self._signatures), _BLOCK):
            self._insert(self._signatures[start : start + _BLOCK], start + 1)

    def _home(self, keys: Hashes) -> NDArray[np.intp]:
        return (keys & np.uint64(len(self._slots) - 1)).astype(np.intp)

    def _window(self, places: NDArray[np.intp]) -> NDArray[np.intp]:
        """The slots to look at, in their order [places, _WINDOW]."""
        return (places[:, None] + np.arange(_WINDOW)) & (len(self._slots) - 1)


def _band_keys(of: list[Signature]) -> Hashes:
    """One key per signature and band [signatures * BANDS]: other bands with the same entries have other keys."""
    entries = np.stack(of)[:, : BANDS * BAND_ROWS].reshape(len(of), BANDS, BAND_ROWS).astype(np.uint64)
    return mixed((entries * _PLACES).sum(axis=2, dtype=np.uint64) ^ _SALTS).ravel()


def _same_key(some: Hashes, others: Hashes) -> NDArray[np.bool_]:
    return (some & ~_NUMBER) == (others & ~_NUMBER)


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
    """Keep the first of documents whose estimated Jaccard similarity is at least `similarity`, from 0.4 on.

    Pairs under 0.4 meet in a band too seldom to be found (`found_probability`).
    """
    kept = SignatureIndex()

    def keep(document: Document) -> Verdict:
        of_document = signature(document.text, seed)
        if kept.similarity(of_document) >= similarity:
            return False, "near duplicate of an earlier document"
        kept.add(of_document)
        return True

    return keep

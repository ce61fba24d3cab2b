"""Hashes of word n-grams, for finding the same text again: duplicates and evaluation items."""

import re
import zlib

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

_WORD = re.compile(r"\w+")
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, bits of the golden ratio
# Multipliers of SplitMix64's finalizer (Steele, Lea, Flood 2014).
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def words(text: str) -> list[str]:
    """The lower-case words of `text`, without punctuation."""
    return _WORD.findall(text.lower())


def word_hashes(text: str) -> Hashes:
    """One 64-bit hash per word [words]."""
    codes = np.fromiter((zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in words(text)), dtype=np.uint64)
    return mixed(codes)


def mixed(values: Hashes) -> Hashes:
    """A bijection of 64-bit numbers that spreads small differences over all bits (the finalizer of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * _FIRST
    values = (values ^ (values >> np.uint64(27))) * _SECOND
    return values ^ (values >> np.uint64(31))


def ngram_hashes(hashes: Hashes, length: int) -> Hashes:
    """One hash per run of `length` words [max(0, words - length + 1)], polynomial in the word hashes."""
    if len(hashes) < length:
        return hashes[:0]
    count = len(hashes) - length + 1
    total = hashes[:count].copy()
    for offset in range(1, length):
        total = total * _BASE + hashes[offset : offset + count]
    return mixed(total)


def row_hashes(rows: NDArray[np.uint32]) -> Hashes:
    """One hash per row [n] of `rows` [n, k]."""
    total = np.zeros(len(rows), dtype=np.uint64)
    for column in rows.T:
        total = total * _BASE + column
    return mixed(total)

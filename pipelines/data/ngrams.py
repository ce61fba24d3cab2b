"""Hashes of word n-grams, for finding the same text again: duplicates and evaluation items."""

import re
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

_WORD = re.compile(r"[^\W_]+")
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, bits of the golden ratio
# Multipliers of SplitMix64's finalizer (Steele, Lea, Flood 2014).
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def words(text: str) -> list[str]:
    """The lower-case words of `text`, without punctuation and underscores."""
    return _WORD.findall(text.casefold())


def word_hashes(text: str) -> Hashes:
    """One 64-bit hash per word [words]."""
    return hashes_of(words(text))


def hashes_of(found: list[str]) -> Hashes:
    """One 64-bit hash per string [found]."""
    return mixed(np.array([zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in found], dtype=np.uint64))


def mixed(values: Hashes) -> Hashes:
    """A bijection of 64-bit numbers that spreads small differences over all bits (the finalizer of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * _FIRST
    values = (values ^ (values >> np.uint64(27))) * _SECOND
    return values ^ (values >> np.uint64(31))


def ngram_hashes(hashes: Hashes, length: int) -> Hashes:
    """One hash per run of `length` words [max(0, words - length + 1)], polynomial in the word hashes."""
    *_, longest = ngram_hashes_to(hashes, length)
    return mixed(longest)


def ngram_hashes_to(hashes: Hashes, longest: int) -> Iterator[Hashes]:
    """The hashes of runs of one word, of two words, and so on to `longest`; only their high bits are well mixed."""
    total = hashes
    for length in range(1, longest + 1):
        if length > 1:
            total = total[:-1] * _BASE + hashes[length - 1 :]
        yield total

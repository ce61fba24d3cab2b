"""The small moderation classifier: hashed character and word n-grams, one logistic regression per category.

A model folder holds `model.safetensors` (`weights` [categories, 2 ** hash_bits] and `bias` [categories], float32)
and `config.json`. Scoring needs NumPy alone, so data cleaning, evals and serving can load it in no time.
"""

import hashlib
import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_json, write_json
from pipelines.model.disguise import undisguise
from pipelines.model.moderation import CONFIG, FORMAT

WEIGHTS = "model.safetensors"

_WORD = re.compile(r"\w+")
_SPACE = re.compile(r"\s+")
_DRAWN_OUT = re.compile(r"(.)\1{2,}")
# Odd 64-bit constants of the golden ratio and of SplitMix64; any odd ones with mixed bits would do.
_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)


class Features(NamedTuple):
    """One text as a sparse unit vector: sorted distinct `indices` [k] and their `values` [k]."""

    indices: NDArray[np.int32]
    values: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FeatureShape:
    """Which n-grams are counted and into how many buckets."""

    hash_bits: int
    shortest: int  # characters
    longest: int  # characters
    word_ngrams: int  # 1: words, 2: words and pairs
    word_weight: float  # a word counts as so many character n-grams

    def of(self, text: str) -> Features:
        """The features of `text`; an empty text has none."""
        normal = normalize(text)
        if not normal:
            return Features(np.zeros(0, np.int32), np.zeros(0, np.float32))
        characters = self._buckets(character_hashes(f" {normal} ", self.shortest, self.longest))
        words = self._buckets(word_hashes(normal, self.word_ngrams))
        weights = np.concatenate([np.ones(len(characters)), np.full(len(words), self.word_weight)])
        indices, where = np.unique(np.concatenate([characters, words]), return_inverse=True)
        values = np.sqrt(np.bincount(where, weights))
        return Features(indices, (values / np.linalg.norm(values)).astype(np.float32))

    def _buckets(self, hashes: NDArray[np.uint64]) -> NDArray[np.int32]:
        mixed = (hashes ^ (hashes >> np.uint64(29))) * _MIX
        return (mixed >> np.uint64(64 - self.hash_bits)).astype(np.int32)


def normalize(text: str) -> str:
    """`text` without disguise, case, runs of space or drawn-out letters."""
    return _DRAWN_OUT.sub(r"\1\1", _SPACE.sub(" ", undisguise(text).text.casefold()).strip())


def character_hashes(text: str, shortest: int, longest: int) -> NDArray[np.uint64]:
    """One 64-bit hash per character n-gram of `text`, polynomial in the code points."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    hashes = codes
    parts = [hashes] if shortest == 1 else []
    for length in range(2, min(longest, len(codes)) + 1):
        hashes = hashes[:-1] * _STEP + codes[length - 1 :]
        if length >= shortest:
            parts.append(hashes)
    return np.concatenate(parts) if parts else np.zeros(0, np.uint64)


def word_hashes(text: str, longest: int) -> NDArray[np.uint64]:
    """One hash per run of up to `longest` words of `text`."""
    words = [zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in _WORD.findall(text)]
    # Moved out of the range of code points, so that a one-letter word is no character n-gram.
    codes = np.array(words, dtype=np.uint64) + np.uint64(1 << 33)
    hashes = codes
    parts = [hashes]
    for length in range(2, min(longest, len(codes)) + 1):
        hashes = hashes[:-1] * _STEP + codes[length - 1 :]
        parts.append(hashes)
    return np.concatenate(parts)


class NGramModerator:
    """Scores texts in every category that the folder was trained on."""

    def __init__(
        self, categories: Sequence[str], shape: FeatureShape, weights: NDArray[np.float32], bias: NDArray[np.float32]
    ) -> None:
        assert weights.shape == (len(categories), 1 << shape.hash_bits) and bias.shape == (len(categories),)
        self.categories = tuple(categories)
        self.shape = shape
        self._weights = np.ascontiguousarray(weights.T)  # a text reads few rows, each in one piece
        self._bias = bias
        self.version = self._digest()

    def _digest(self) -> str:
        """What logs name the model by: 12 hex digits over its numbers and shape."""
        digest = hashlib.sha256(json.dumps([self.categories, asdict(self.shape)]).encode())
        digest.update(self._weights.tobytes() + self._bias.tobytes())
        return digest.hexdigest()[:12]

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a folder that `save` wrote.

        Raises:
            BadInput: it has no weights.
        """
        config: dict[str, Any] = read_json(folder / CONFIG)
        if not (folder / WEIGHTS).is_file():
            raise BadInput(f"{folder / WEIGHTS} does not exist; run train_moderation")
        tensors = load_file(folder / WEIGHTS)
        return cls(config["categories"], FeatureShape(**config["features"]), tensors["weights"], tensors["bias"])

    def save(self, folder: Path) -> None:
        """Write `model.safetensors`, then `config.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {"weights": np.ascontiguousarray(self._weights.T), "bias": self._bias}
        save_file(tensors, folder / WEIGHTS)
        config = {
            "format": FORMAT,
            "kind": "ngrams",
            "categories": list(self.categories),
            "features": asdict(self.shape),
            "version": self.version,
        }
        write_json(folder / CONFIG, config)

    def score(self, texts: list[str]) -> list[dict[str, float]]:
        """The probability of each category for each text; the categories are independent of each other."""
        scores = []
        for text in texts:
            indices, values = self.shape.of(text)
            logits = values @ self._weights[indices] + self._bias
            probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
            scores.append(dict(zip(self.categories, probabilities.tolist(), strict=True)))
        return scores

"""Drops documents that share a run of words with an evaluation item."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.core.jsonl import read_rows
from pipelines.core.records import Document
from pipelines.data.ngrams import Hashes, ngram_hashes, word_hashes
from pipelines.data.steps import Filter, Verdict

MIN_WORDS = 8  # of an item that is shorter than an n-gram; still shorter ones occur by chance


def texts_in(value: Any) -> Iterator[str]:
    """Every string inside a JSON value but the keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from texts_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts_in(inner)


def evaluation_texts(folder: Path) -> Iterator[str]:
    """Every text in the JSONL files of `folder`."""
    for path in sorted(folder.glob("*.jsonl")):
        for row in read_rows(path):
            yield from texts_in(row)


class ItemIndex:
    """The runs of words to look for, by their length: `ngram` words, or a whole item that is shorter."""

    def __init__(self, texts: Iterable[str], ngram: int) -> None:
        runs: dict[int, list[Hashes]] = {}
        for text in texts:
            hashes = word_hashes(text)
            if len(hashes) >= min(MIN_WORDS, ngram):
                length = min(ngram, len(hashes))
                runs.setdefault(length, []).append(ngram_hashes(hashes, length))
        self._runs = {length: np.unique(np.concatenate(found)) for length, found in sorted(runs.items())}

    def occurs_in(self, text: str) -> bool:
        """Whether `text` has one of the runs."""
        hashes = word_hashes(text)
        return any(
            bool(np.isin(ngram_hashes(hashes, length), runs, assume_unique=False).any())
            for length, runs in self._runs.items()
        )


def decontamination_filter(texts: Iterable[str], ngram: int) -> Filter:
    """Keep documents without a run of `ngram` words of any of `texts`, the evaluation items."""
    index = ItemIndex(texts, ngram)

    def keep(document: Document) -> Verdict:
        return (False, f"shares {ngram} words with an evaluation item") if index.occurs_in(document.text) else True

    return keep

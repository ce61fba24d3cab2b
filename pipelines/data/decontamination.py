"""Finds evaluation items in other texts, and drops documents that share a run of words with one.

`prepare_corpus` drops, `validate_corpus` and `evaluate` look again.

What makes an item of a text: a question or prompt by itself from 3 words on, another field from 8 words on, and a
question together with its choices. An item of more than `ngram` words is found by any run of `ngram` of its words, a
shorter one as a whole. Case, accents, layout and punctuation don't count: each text is read in three ways, with
punctuation as a gap between words, with punctuation left out, and without words of one character, which drops the
letters before choices.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.core.records import Document
from pipelines.data.evaluation_sets import data_files, evaluation_rows
from pipelines.data.ngrams import Hashes, hashes_of, ngram_hashes_to, words
from pipelines.data.steps import Filter, Verdict

# In 11.6 MB of manuals, web pages, encyclopaedia and drama, MMLU's questions of one or two words occur in 65 texts of
# 823, those of three to twelve words in 3.
MIN_WORDS = 3
MIN_FIELD_WORDS = 8  # of a field that is no question: names, subjects and single choices occur by chance
QUESTIONS = frozenset({"question", "prompt", "instruction", "problem", "goal", "query", "turns"})

TABLE_ENTRIES_PER_RUN = 16

_MARKS = re.compile(r"[\u0300-\u036f]")
_PUNCTUATION = re.compile(r"[^\w\s]|_")


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


def item_texts(row: dict[str, Any]) -> Iterator[str]:
    """What of an evaluation row a training text must not contain."""
    questions = [text for name, value in row.items() if name in QUESTIONS for text in texts_in(value)]
    yield from questions
    rest = {name: value for name, value in row.items() if name not in QUESTIONS}
    for text in texts_in(rest):
        if len(words(text)) >= MIN_FIELD_WORDS:
            yield text
    for choices in rest.values():
        if isinstance(choices, list):
            together = " ".join([*questions, *texts_in(choices)])
            if len(words(together)) >= MIN_FIELD_WORDS:
                yield together


def evaluation_files(folder: Path, *configured: str) -> list[Path]:
    """Every evaluation set in use: the data files below `folder` and those that parameters name, each once."""
    found = {path.resolve(): path for root in (*map(Path, configured), folder) for path in data_files(root)}
    return sorted(found.values())


def evaluation_texts(files: Iterable[Path]) -> Iterator[str]:
    """What to look for, of every row of `files`."""
    for path in files:
        for row in evaluation_rows(path):
            yield from item_texts(row)


class Reading(NamedTuple):
    """The words of a text in one way of reading it."""

    words: list[str]
    hashes: Hashes  # [words]
    min_words: int  # of an item to look for


def readings(text: str) -> Iterator[Reading]:
    """The three readings of `text`."""
    if not text.isascii():
        text = _MARKS.sub("", unicodedata.normalize("NFKD", text))
    split = words(text)
    hashes = hashes_of(split)
    yield Reading(split, hashes, MIN_WORDS)
    long = [len(word) > 1 for word in split]
    yield Reading(list(itertools.compress(split, long)), hashes[np.array(long, dtype=bool)], MIN_FIELD_WORDS)
    joined = _PUNCTUATION.sub("", text.casefold()).split()
    yield Reading(joined, hashes_of(joined), MIN_WORDS)


def runs_of(text: str, ngram: int) -> Iterator[tuple[int, Hashes]]:
    """Lengths and hashes of the runs that tell `text`; a long one of numbers and single letters tells nothing."""
    for found, hashes, min_words in readings(text):
        length = min(ngram, len(found))
        if length >= min(min_words, ngram):
            *_, runs = ngram_hashes_to(hashes, length)
            if length >= MIN_FIELD_WORDS:
                telling = [len(word) > 1 and not word.isdigit() for word in found]
                runs = runs[np.convolve(telling, np.ones(length), "valid") > 0]
            yield length, runs


class ItemIndex:
    """The runs of words to look for: `ngram` words, or a whole item that is shorter.

    Holds a hash per run, and for speed a table that says for most runs of other texts that they are none of these.
    """

    def __init__(self, texts: Iterable[str], ngram: int) -> None:
        found = [pair for text in texts for pair in runs_of(text, ngram)]
        self._lengths = {length for length, _ in found}
        self._runs = np.unique(np.concatenate([np.zeros(0, dtype=np.uint64), *(runs for _, runs in found)]))
        table_bits = max(len(self._runs) * TABLE_ENTRIES_PER_RUN, 1).bit_length()
        self._shift = np.uint64(64 - table_bits)
        self._table: NDArray[np.bool_] = np.zeros(1 << table_bits, dtype=np.bool_)
        self._table[self._runs >> self._shift] = True

    def occurs_in(self, text: str) -> bool:
        """Whether `text` has one of the runs."""
        return next(self.found_in(text), None) is not None

    def found_in(self, text: str) -> Iterator[int]:
        """The hashes of the runs that `text` has, some more than once."""
        for reading in readings(text):
            yield from self._found(reading.hashes)

    def _found(self, hashes: Hashes) -> Iterator[int]:
        longest = min(max(self._lengths, default=0), len(hashes))
        for length, runs in enumerate(ngram_hashes_to(hashes, longest), start=1):
            if length in self._lengths:
                likely = runs[self._table[runs >> self._shift]]
                places = np.minimum(np.searchsorted(self._runs, likely), len(self._runs) - 1)
                yield from likely[self._runs[places] == likely].tolist()


def decontamination_filter(texts: Iterable[str], ngram: int) -> Filter:
    """Keep documents without a run of `ngram` words, or the whole, of any of `texts`, the evaluation items."""
    index = ItemIndex(texts, ngram)

    def keep(document: Document) -> Verdict:
        return (False, f"shares {ngram} words with an evaluation item") if index.occurs_in(document.text) else True

    return keep

"""Texts with moderation labels: what a source, people and patterns say of each category, and variants of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_rows
from pipelines.data.patterns import expand

CATEGORIES = ("harassment", "hate", "self_harm", "sexual", "minors", "violence", "illicit", "prompt_injection")
IN_COMPANY_SHARE = 0.15  # of the patterns' texts appear once more beside a harmless one
MISSPELLED_SHARE = 0.08
PASSAGE_WORDS = (6, 10, 16, 40)  # as the windows of serving/moderation.yaml, and longer
PASSAGES_PER_TURN = 4
_LOOKS_LIKE = {"a": "4@", "e": "3", "i": "1!", "o": "0", "s": "5$"}


@dataclass(frozen=True, slots=True)
class Example:
    """A text with its labels. A source labels some categories; of all others, what is not named is absent."""

    text: str
    labels: dict[str, int]
    origin: Literal["source", "written", "pattern"]


def read_examples(path: Path, origin: Literal["source", "written"]) -> list[Example]:
    """The rows of one file.

    Raises:
        BadInput: a row is not {text, labels} with known categories and labels 0 or 1.
    """
    examples = []
    for number, row in enumerate(read_rows(path), start=1):
        labels = row.get("labels")
        if not isinstance(row.get("text"), str) or not isinstance(labels, dict):
            raise BadInput(f"{path}: row {number} needs a string `text` and a mapping `labels`")
        if not set(labels) <= set(CATEGORIES) or not set(labels.values()) <= {0, 1}:
            raise BadInput(f"{path}: row {number} has labels {labels}; valid: 0 or 1 for {', '.join(CATEGORIES)}")
        examples.append(Example(row["text"], labels, origin))
    return examples


def expanded_examples(path: Path, share: float, rng: np.random.Generator) -> list[Example]:
    """`share` of the patterns' texts, some once more beside a harmless one, some misspelled, in random order.

    Raises:
        BadInput: the patterns can't be read or have an unknown category.
    """
    found = expand(path, share, rng)
    if unknown := sorted({label for each in found for label in each.labels} - set(CATEGORIES)):
        raise BadInput(f"{path} labels {unknown}; valid: {', '.join(CATEGORIES)}")
    examples = [Example(each.text, dict.fromkeys(sorted(each.labels), 1), "pattern") for each in found]
    harmless = [example.text for example in examples if not example.labels]
    examples += [in_company(example, harmless, rng) for example in examples if rng.random() < IN_COMPANY_SHARE]
    examples = [misspelled(example, rng) if rng.random() < MISSPELLED_SHARE else example for example in examples]
    return [examples[index] for index in rng.permutation(len(examples))]


def harmless_passages(path: Path, rng: np.random.Generator) -> list[Example]:
    """The turns of the project's demonstrations, each whole and in pieces, as a stream is judged piece by piece.

    Requests that the demonstrations refuse are left out.
    """
    turns = [
        turn["content"]
        for row in read_rows(path)
        for turn in row["messages"]
        if turn["role"] == "assistant" or row["category"] != "refusal"
    ]
    pieces = []
    for words in (turn.split() for turn in turns):
        for size in rng.choice(PASSAGE_WORDS, PASSAGES_PER_TURN).tolist():
            start = int(rng.integers(max(1, len(words) - size + 1)))
            pieces.append(" ".join(words[start : start + size]))
    return [Example(text, {}, "pattern") for text in dict.fromkeys([*turns, *pieces])]


def in_company(example: Example, harmless: Sequence[str], rng: np.random.Generator) -> Example:
    """The text of `example` before or after a harmless one; its labels stay."""
    other = harmless[int(rng.integers(len(harmless)))]
    text = f"{other} {example.text}" if rng.random() < 0.5 else f"{example.text} {other}"
    return replace(example, text=text)


def misspelled(example: Example, rng: np.random.Generator) -> Example:
    """`example` with one letter in twelve dropped, doubled, swapped with the next, or written as a sign like it."""
    letters = list(example.text)
    for at in np.flatnonzero(rng.random(len(letters)) < 1 / 12).tolist():
        if not letters[at].isalpha():
            continue
        match int(rng.integers(4)):
            case 0:
                letters[at] = ""
            case 1:
                letters[at] *= 2
            case 2 if at + 1 < len(letters):
                letters[at], letters[at + 1] = letters[at + 1], letters[at]
            case _:
                signs = _LOOKS_LIKE.get(letters[at].lower(), letters[at])
                letters[at] = signs[int(rng.integers(len(signs)))]
    return replace(example, text="".join(letters))

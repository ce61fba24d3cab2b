"""Expands the patterns of a YAML file into labelled texts: the project's own examples beyond those written one by one.

The file's `lists` name alternatives, `{name}` in a pattern takes one of them, and `groups` say how many texts carry
which labels; its head comment has the rest.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipelines.core.config import read_yaml
from pipelines.core.errors import BadInput

_SLOT = re.compile(r"\{(\w+)\}")
TRIES_PER_TEXT = 5  # a group with fewer different texts than it asks for ends early


class Expanded(NamedTuple):
    """A text and the categories that apply to it; all others are absent."""

    text: str
    group: str
    labels: frozenset[str]


def fill(pattern: str, lists: Mapping[str, Sequence[str]], rng: np.random.Generator) -> str:
    """`pattern` with every slot replaced by a random entry of its list, and theirs in turn.

    Raises:
        KeyError: a slot names no list.
    """

    def choice(slot: re.Match[str]) -> str:
        entries = lists[slot[1]]
        return fill(entries[int(rng.integers(len(entries)))], lists, rng)

    return _SLOT.sub(choice, pattern)


def sentence_case(text: str) -> str:
    """`text` with a capital first letter."""
    return text[:1].upper() + text[1:]


def expand(path: Path, share: float, rng: np.random.Generator) -> list[Expanded]:
    """`share` of each group's texts, all different, group by group.

    Raises:
        BadInput: the file has a slot without a list, or a group without patterns, labels or count.
    """
    values = read_yaml(path)
    texts: dict[str, Expanded] = {}
    try:
        lists: dict[str, list[str]] = {name: [str(entry) for entry in rows] for name, rows in values["lists"].items()}
        for group in values["groups"]:
            own = lists | {slot: lists[source] for slot, source in group["with"].items()}
            patterns = [pattern for name in group["patterns"] for pattern in lists[name]]
            wanted = max(1, round(share * group["count"]))
            before = len(texts)
            for _ in range(wanted * TRIES_PER_TEXT):
                text = sentence_case(fill(patterns[int(rng.integers(len(patterns)))], own, rng))
                texts.setdefault(text, Expanded(text, group["name"], frozenset(group["labels"])))
                if len(texts) - before == wanted:
                    break
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path} is no file of patterns: {type(error).__name__} {error}") from error
    return list(texts.values())

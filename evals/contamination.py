"""Counts evaluation items whose text occurs in what the model was trained on.

`prepare_corpus` has removed such documents; this looks again, at the finished training data.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from pipelines.core.jsonl import Row

_WORD = re.compile(r"\w+")
MIN_WORDS = 8  # of an item; shorter ones occur by chance
KEY_WORDS = 4


def words(text: str) -> list[str]:
    """Lower-case words of `text`."""
    return _WORD.findall(text.lower())


def item_text(row: Row) -> str:
    """What of an evaluation row a training text must not contain."""
    return str(row["question"] if "question" in row else row["prompt"])


def item_id(row: Row) -> str:
    return str(row["task_id"] if "task_id" in row else row["id"])


def contaminated(items: Iterable[Row], texts: Iterable[str], ngram: int) -> dict[str, Any]:
    """Which of `items` share a run of `ngram` words with one of `texts`; a shorter item must occur as a whole.

    Items under 8 words are not checked. One pass over the texts: runs are looked up by their first four words.
    """
    runs: dict[tuple[str, ...], list[tuple[list[str], str]]] = defaultdict(list)
    checked: set[str] = set()
    for row in items:
        found, name = words(item_text(row)), item_id(row)
        if len(found) < MIN_WORDS:
            continue
        checked.add(name)
        length = min(ngram, len(found))
        for start in range(len(found) - length + 1):
            run = found[start : start + length]
            runs[tuple(run[:KEY_WORDS])].append((run, name))
    hit: set[str] = set()
    for text in texts:
        found = words(text)
        for start, key in enumerate(zip(*(found[shift:] for shift in range(KEY_WORDS)), strict=False)):
            for run, name in runs.get(key, ()):
                if found[start : start + len(run)] == run:
                    hit.add(name)
    return {
        "checked": len(checked),
        "contaminated": sorted(hit),
        "contaminated_share": len(hit) / len(checked) if checked else 0.0,
    }

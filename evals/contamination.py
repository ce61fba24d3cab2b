"""Counts evaluation items whose text occurs in what the model was trained on.

`prepare_corpus` has removed such documents; this looks again, by the same rule, at the finished training data.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from pipelines.core.jsonl import Row
from pipelines.data.decontamination import ItemIndex, item_texts, runs_of


def item_id(row: Row) -> str:
    return str(row["task_id"] if "task_id" in row else row["id"])


def contaminated(items: Iterable[Row], texts: Iterable[str], ngram: int) -> dict[str, Any]:
    """Which of `items` share a run of `ngram` words with one of `texts`; a shorter item must occur as a whole.

    Items too short to be told from other text are not checked.
    """
    looked_for: list[str] = []
    owners: dict[int, set[str]] = defaultdict(set)  # of each run, by its hash
    for row in items:
        for text in item_texts(row):
            looked_for.append(text)
            for _, runs in runs_of(text, ngram):
                for run in runs.tolist():
                    owners[run].add(item_id(row))
    index = ItemIndex(looked_for, ngram)
    checked = set().union(*owners.values())
    hit = {name for text in texts for run in index.found_in(text) for name in owners[run]}
    return {
        "checked": len(checked),
        "contaminated": sorted(hit),
        "contaminated_share": len(hit) / len(checked) if checked else 0.0,
    }

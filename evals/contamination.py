"""Counts evaluation items whose text occurs in what the model was trained on.

`prepare_corpus` has removed such documents; this looks again, by the same rule, at the finished training data.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pipelines.core import artifacts
from pipelines.core.config import Params
from pipelines.core.jsonl import Row, read_rows
from pipelines.data.decontamination import ItemIndex, evaluation_files, item_texts, runs_of
from pipelines.data.evaluation_sets import evaluation_rows

EVALUATION_DATA = Path("evals/datasets")
# How much of the corpus is looked through again; prepare_corpus has looked through all of it.
CORPUS_CHARACTERS = 4_000_000


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


def training_texts() -> Iterator[str]:
    """What the model was trained on: all demonstrations and prompts, and the beginning of the corpus."""
    for path in (artifacts.SFT_TRAIN, artifacts.PROMPTS_LABELING, artifacts.PROMPTS_ALIGNMENT):
        for row in read_rows(path):
            yield "\n".join(message["content"] for message in row["messages"])
    left = CORPUS_CHARACTERS
    for row in read_rows(artifacts.CORPUS_TRAIN):
        if left <= 0:
            return
        left -= len(row["text"])
        yield row["text"]


def check_contamination(params: Params) -> dict[str, Any]:
    """Evaluation items that occur in the training data."""
    files = evaluation_files(EVALUATION_DATA, *params.evaluate.data)
    items: Iterator[Row] = itertools.chain.from_iterable(map(evaluation_rows, files))
    return contaminated(items, training_texts(), params.prepare_corpus.decontamination_ngram)

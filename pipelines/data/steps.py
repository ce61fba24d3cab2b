"""The shape of a cleaning step, and the loop that runs steps over documents and accounts for every drop.

A filter says True, or False with a reason; a transform gives the changed document, or raises `Unusable`. Both look at
one document at a time, so a corpus of any size streams through. A filter may remember what it saw (duplicates).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Literal, NamedTuple

from pipelines.core.jsonl import Row
from pipelines.core.records import Document

_COUNTS = ("documents_in", "documents_out", "bytes_in", "bytes_out")

Verdict = Literal[True] | tuple[Literal[False], str]
Filter = Callable[[Document], Verdict]
Transform = Callable[[Document], Document]


class Unusable(Exception):
    """A transform can't make anything of a document; the message is the reason of the drop."""


class Dropped(NamedTuple):
    """A document that a step took out, as it was when it came to that step."""

    document: Document
    step: str
    reason: str

    def to_row(self) -> Row:
        return {"step": self.step, "reason": self.reason, "document": self.document.to_row()}


class Step(NamedTuple):
    """One named step: what comes out of a document, and the module that its code is in."""

    name: str
    apply: Callable[[Document], Document | Dropped]
    module: str


def filtering(name: str, keep: Filter) -> Step:
    """A step that passes documents on unchanged or drops them."""

    def apply(document: Document) -> Document | Dropped:
        verdict = keep(document)
        return document if verdict is True else Dropped(document, name, verdict[1])

    return Step(name, apply, keep.__module__)


def transforming(name: str, change: Transform) -> Step:
    """A step that changes documents."""

    def apply(document: Document) -> Document | Dropped:
        try:
            return change(document)
        except Unusable as error:
            return Dropped(document, name, str(error))

    return Step(name, apply, change.__module__)


class Funnel:
    """Documents and bytes into and out of each step for each source, and drops by reason."""

    def __init__(self, steps: Iterable[Step]) -> None:
        self._modules = {step.name: step.module for step in steps}
        self._counts: dict[tuple[str, str], Counter[str]] = {}
        self._reasons: dict[tuple[str, str], Counter[str]] = {}

    def count(self, step: str, before: Document, after: Document | Dropped) -> None:
        """Enter what became of one document in one step."""
        counts = self._counts.setdefault((step, before.source), Counter())
        counts["documents_in"] += 1
        counts["bytes_in"] += len(before.text.encode())
        if isinstance(after, Dropped):
            self._reasons.setdefault((step, before.source), Counter())[after.reason] += 1
        else:
            counts["documents_out"] += 1
            counts["bytes_out"] += len(after.text.encode())

    def rows(self) -> list[Row]:
        """One row per step and source, in the order of the steps."""
        return [
            {"step": step, "module": module, "source": source}
            | {name: self._counts[step, source][name] for name in _COUNTS}
            | {"dropped": dict(sorted(self._reasons.get((step, source), {}).items()))}
            for step, module in self._modules.items()
            for source in sorted({source for _, source in self._counts})
            if (step, source) in self._counts
        ]


def merged(funnels: Iterable[list[Row]]) -> list[Row]:
    """The rows of several funnels added up, by step as they first come and then by source."""
    found: dict[tuple[str, str], Row] = {}
    for row in chain.from_iterable(funnels):
        total = found.setdefault((row["step"], row["source"]), row | dict.fromkeys(_COUNTS, 0) | {"dropped": {}})
        for name in _COUNTS:
            total[name] += row[name]
        reasons: Counter[str] = Counter(total["dropped"]) + Counter(row["dropped"])
        total["dropped"] = dict(sorted(reasons.items()))
    steps = list(dict.fromkeys(step for step, _ in found))
    return [found[key] for key in sorted(found, key=lambda key: (steps.index(key[0]), key[1]))]


def run_steps(documents: Iterable[Document], steps: list[Step], funnel: Funnel) -> Iterator[Document | Dropped]:
    """Send each document through `steps` until one drops it; yields what is left of each, in order."""
    for document in documents:
        result: Document | Dropped = document
        for step in steps:
            assert isinstance(result, Document)
            after = step.apply(result)
            funnel.count(step.name, result, after)
            result = after
            if isinstance(result, Dropped):
                break
        yield result

"""Reads one file as a source, as `ingest` does."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from pipelines.core.records import Document
from pipelines.core.sections.data import Source
from pipelines.data.archives import open_archive
from pipelines.data.reading import Limits, read_documents
from pipelines.data.rows import Quarantined

WIDE = Limits(documents=1_000_000, size=1 << 32)


class Reading(NamedTuple):
    """What came out of a source."""

    documents: list[Document]
    quarantined: list[Quarantined]
    passed_over: Counter[str]


def corpus_source(use: str = "corpus", **columns: str) -> Source:
    return Source.model_validate(
        {
            "name": "s",
            "use": use,
            "origin": "file:x",
            "sha256": "0" * 64,
            "license": "MIT",
            "include": [],
            "columns": columns,
            "weight": 1.0,
        }
    )


def read_file(path: Path, content: bytes, limits: Limits = WIDE, **columns: str) -> Reading:
    """The documents of a file with this content."""
    path.write_bytes(content)
    passed_over: Counter[str] = Counter()
    with open_archive(path, "source s (file:x)") as archive:
        found = list(read_documents(corpus_source(**columns), archive, limits, passed_over))
    return Reading(
        [item for item in found if isinstance(item, Document)],
        [item for item in found if isinstance(item, Quarantined)],
        passed_over,
    )

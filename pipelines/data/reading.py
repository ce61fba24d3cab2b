"""Turns a source's files into Document rows and moderation rows; what can't be read is quarantined with its reason."""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO, Any, NamedTuple, cast

from pipelines.core.config import Source
from pipelines.core.jsonl import Row
from pipelines.core.records import Document, content_id
from pipelines.data.archives import Archive, Member, matching

MAX_FILE_BYTES = 32 << 20  # one text; larger ones are dumps or attacks
MAX_LINE_BYTES = 16 << 20  # one row
FORMATS = {
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".rst": "rst",
    ".md": "markdown",
    ".txt": "text",
    "": "text",
}
ROW_FORMATS = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz")
_CHARSET = re.compile(rb"""charset\s*=\s*["']?([\w-]+)""", re.IGNORECASE)


class Quarantined(NamedTuple):
    """Something of a source that can't be read: which file, which line (None: the whole file), and why."""

    source: str
    path: str
    line: int | None
    reason: str

    def to_row(self) -> Row:
        return self._asdict()


class Limits(NamedTuple):
    """How much of one source is taken, first by path, a text that doesn't fit being passed over."""

    documents: int
    size: int  # bytes of raw text


class _Line(NamedTuple):
    number: int
    content: bytes | None  # None: longer than MAX_LINE_BYTES


def decode(raw: bytes, is_html: bool) -> str:
    """UTF-8, or the charset that an HTML page declares.

    Raises:
        ValueError: the bytes are not text in that encoding.
    """
    declared = _CHARSET.search(raw[:2048]) if is_html else None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        if declared is None:
            raise
    try:
        return raw.decode(declared[1].decode("ascii"))
    except LookupError as error:
        raise ValueError(f"unknown charset {declared[1]!r}") from error


def _suffix(path: str) -> str:
    suffixes = PurePosixPath(path).suffixes
    return "".join(suffixes[-2:]).lower() if suffixes[-1:] == [".gz"] else "".join(suffixes[-1:]).lower()


def _lines(file: IO[bytes]) -> Iterator[_Line]:
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) <= MAX_LINE_BYTES:
            yield _Line(number, line)
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE_BYTES)
        yield _Line(number, None)


def _json_rows(source: Source, member: Member, file: IO[bytes]) -> Iterator[tuple[int, Row] | Quarantined]:
    for number, content in _lines(file):
        if content is None:
            yield Quarantined(source.name, member.path, number, f"longer than {MAX_LINE_BYTES >> 20} MiB")
            continue
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except ValueError as error:
            yield Quarantined(source.name, member.path, number, f"not valid JSON: {error}")
            continue
        if isinstance(row, dict):
            yield number, row
        else:
            yield Quarantined(source.name, member.path, number, f"a {type(row).__name__}, expected a JSON object")


def _csv_rows(source: Source, member: Member, file: IO[bytes]) -> Iterator[tuple[int, Row] | Quarantined]:
    csv.field_size_limit(MAX_LINE_BYTES)
    rows = csv.DictReader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""))
    try:
        for row in rows:
            yield rows.line_num, row
    except (csv.Error, UnicodeDecodeError) as error:  # where the next row begins can't be known
        yield Quarantined(source.name, member.path, rows.line_num + 1, f"not valid CSV from here on: {error}")


def _rows(source: Source, archive: Archive, member: Member) -> Iterator[tuple[int, Row] | Quarantined]:
    suffix = _suffix(member.path)
    line = 0
    with archive.open(member.path) as raw:
        file = cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if suffix.endswith(".gz") else raw
        read = _csv_rows if suffix.startswith(".csv") else _json_rows
        try:
            for found in read(source, member, file):
                line = found[0] if not isinstance(found, Quarantined) else found.line or line
                yield found
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            yield Quarantined(source.name, member.path, line + 1, f"damaged gzip from here on: {error}")


def _scalars(row: Row, without: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != without and isinstance(value, str | int | float)}


def _document(source: Source, text: str, metadata: dict[str, Any]) -> Document:
    return Document(
        id=content_id([source.name, metadata["path"], metadata.get("line"), text]),
        text=text,
        source=source.name,
        license=source.license,
        metadata=metadata,
    )


def _documents_of_rows(source: Source, archive: Archive, member: Member) -> Iterator[Document | Quarantined]:
    column = source.columns.get("text", "text")
    for found in _rows(source, archive, member):
        if isinstance(found, Quarantined):
            yield found
            continue
        number, row = found
        text = row.get(column)
        if not isinstance(text, str) or not text.strip():
            yield Quarantined(source.name, member.path, number, f"{column!r} must be a text that is not empty")
            continue
        yield _document(source, text, _scalars(row, column) | {"path": member.path, "line": number, "format": "text"})


def _document_of_file(source: Source, archive: Archive, member: Member) -> Document | Quarantined:
    kind = FORMATS.get(_suffix(member.path))
    if kind is None:
        known = ", ".join(filter(None, (*FORMATS, *ROW_FORMATS)))
        return Quarantined(source.name, member.path, None, f"unknown format; readable: {known}. Narrow `include`")
    if member.size > MAX_FILE_BYTES:
        return Quarantined(source.name, member.path, None, f"{member.size} bytes, more than {MAX_FILE_BYTES}")
    with archive.open(member.path) as file:
        raw = file.read()
    if not raw.strip():
        return Quarantined(source.name, member.path, None, "an empty file")
    try:
        text = decode(raw, kind == "html")
    except ValueError as error:
        return Quarantined(source.name, member.path, None, f"not readable as text: {error}")
    return _document(source, text, {"path": member.path, "format": kind})


def read_documents(source: Source, archive: Archive, limits: Limits) -> Iterator[Document | Quarantined]:
    """The documents of `source` as far as `limits` go; a JSONL or CSV file gives one a row, any other file one."""
    documents = size = 0
    for member in matching(archive, source.include):
        if documents >= limits.documents:
            return
        if _suffix(member.path) not in ROW_FORMATS:
            if size + member.size > limits.size:
                continue
            found: Iterator[Document | Quarantined] = iter([_document_of_file(source, archive, member)])
        else:
            found = _documents_of_rows(source, archive, member)
        for document in found:
            if isinstance(document, Quarantined):
                yield document
                continue
            length = len(document.text.encode())
            if documents >= limits.documents or size + length > limits.size:
                break
            documents += 1
            size += length
            yield document


def _labels(source: Source, row: Row) -> dict[str, int] | str:
    """The labels of a moderation row, or what is wrong with them."""
    columns = {category: column for category, column in source.columns.items() if category != "text"}
    given = {category: row.get(column) for category, column in columns.items()} if columns else row.get("labels")
    if not isinstance(given, dict) or not given:
        return "`labels` must map categories to 0 or 1"
    labels = {}
    for category, value in given.items():
        if str(value) not in ("0", "1"):
            return f"label {category!r} is {value!r}, expected 0 or 1"
        labels[category] = int(value)
    return labels


def read_moderation(source: Source, archive: Archive, max_texts: int) -> Iterator[Row | Quarantined]:
    """The first `max_texts` rows {text, labels} of a moderation source in JSONL or CSV."""
    taken = 0
    for member in matching(archive, source.include):
        if _suffix(member.path) not in ROW_FORMATS:
            yield Quarantined(source.name, member.path, None, f"moderation sources are rows: {', '.join(ROW_FORMATS)}")
            continue
        for found in _rows(source, archive, member):
            if taken >= max_texts:
                return
            if isinstance(found, Quarantined):
                yield found
                continue
            number, row = found
            text, labels = row.get(source.columns.get("text", "text")), _labels(source, row)
            if isinstance(labels, str):
                yield Quarantined(source.name, member.path, number, labels)
            elif not isinstance(text, str) or not text.strip():
                yield Quarantined(source.name, member.path, number, "`text` must be a text that is not empty")
            else:
                taken += 1
                yield {"text": text, "labels": labels}

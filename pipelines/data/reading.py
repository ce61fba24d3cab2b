"""Turns a source's files into Document rows and moderation rows; what can't be read is quarantined with its reason."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from pipelines.core.jsonl import Row, encode
from pipelines.core.records import Document, content_id
from pipelines.core.sections.data import Source
from pipelines.data.archives import UNREADABLE, Archive, Member, gunzipped, matching
from pipelines.data.conversations import consented_rows
from pipelines.data.origins import ConversationsOrigin, parse_origin
from pipelines.data.rows import MAX_LINE_BYTES, ROW_FORMATS, Numbered, Quarantined, plain, read_rows, suffix_of
from pipelines.data.warc import WARC_FORMATS, read_pages

MAX_FILE_BYTES = 32 << 20  # one text; larger ones are dumps or attacks
FORMATS = {
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".rst": "rst",
    ".md": "markdown",
    ".txt": "text",
    "": "text",
}
TEXT_COLUMNS = {"text": "text", "html": "html"}  # our name of the column -> the format of what it holds
_CHARSET = re.compile(rb"""charset\s*=\s*["']?([\w-]+)""", re.IGNORECASE)
_PAGE = re.compile(rb"\s*(<!--.*?-->\s*)*<(!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL)


class Limits(NamedTuple):
    """How much of one source is taken, first by path: a file that doesn't fit is passed over, a row ends the source."""

    documents: int
    size: int  # bytes of raw text


def decode(raw: bytes, is_html: bool, declared: str | None = None) -> str:
    """UTF-8, or else the charset `declared` in an HTTP header or by an HTML page itself.

    Raises:
        ValueError: the bytes are not text in that encoding.
    """
    if is_html and declared is None and (found := _CHARSET.search(raw[:2048])):
        declared = found[1].decode("ascii")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        if declared is None:
            raise
    try:
        return raw.decode(declared)
    except LookupError as error:
        raise ValueError(f"unknown charset {declared!r}") from error


def _at(row: Row, column: str) -> Any:
    """The value of `column`, in which a dot leads into a nested object; None when there is none."""
    if column in row:
        return row[column]
    value: Any = row
    for key in column.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _metadata(source: Source, row: Row, without: str) -> dict[str, Any]:
    """Every plain value of `row` but the text, and what `columns` names, under our name."""
    named = {ours: theirs for ours, theirs in source.columns.items() if ours not in TEXT_COLUMNS}
    renamed = {*named.values(), without}
    values = {key: plain(value) for key, value in row.items() if key not in renamed}
    values |= {ours: plain(_at(row, theirs)) for ours, theirs in named.items()}
    return {key: value for key, value in values.items() if isinstance(value, str | int | float)}


def _document(source: Source, text: str, path: str, metadata: dict[str, Any]) -> Document | Quarantined:
    """A document with the place and text as its id; a licence of its own goes before the source's."""
    line = metadata.get("line")
    if not text.strip():
        return Quarantined(source.name, path, line, "an empty text")
    own = metadata.get("license")
    try:
        encode(metadata)
        return Document(
            id=content_id([source.name, path, line, text]),
            text=text,
            source=source.name,
            license=own if isinstance(own, str) and own else source.license,
            metadata={key: value for key, value in metadata.items() if key != "license"} | {"path": path},
        )
    except UnicodeEncodeError as error:
        return Quarantined(source.name, path, line, f"half of a surrogate pair, which is no text: {error.reason}")


def documents_of_rows(
    source: Source, path: str, rows: Iterable[Numbered | Quarantined]
) -> Iterator[Document | Quarantined]:
    """A document for each row, with its text in the column that `columns` names as `text` or `html`."""
    ours = next((name for name in TEXT_COLUMNS if name in source.columns), "text")
    column = source.columns.get(ours, ours)
    for found in rows:
        if isinstance(found, Quarantined):
            yield found
            continue
        number, row = found
        text = _at(row, column)
        if not isinstance(text, str) or not text.strip():
            yield Quarantined(source.name, path, number, f"{column!r} must be a text that is not empty")
        elif len(text) > MAX_LINE_BYTES:
            yield Quarantined(source.name, path, number, f"{column!r} is longer than {MAX_LINE_BYTES >> 20} MiB")
        else:
            metadata = _metadata(source, row, column)
            yield _document(source, text, path, metadata | {"line": number, "format": TEXT_COLUMNS[ours]})


def _documents_of_conversations(
    source: Source, archive: Archive, member: Member, passed_over: Counter[str]
) -> Iterator[Document | Quarantined]:
    rows = read_rows(source.name, archive, member)
    for found in documents_of_rows(source, member.path, consented_rows(source.name, member.path, rows, passed_over)):
        if isinstance(found, Document):
            # A format of its own: what people type is never cleaned as markup.
            found = replace(found, metadata=found.metadata | {"format": "conversation"})
        yield found


def _documents_of_pages(
    source: Source, archive: Archive, member: Member, passed_over: Counter[str]
) -> Iterator[Document | Quarantined]:
    for page in read_pages(source.name, archive, member, passed_over):
        if isinstance(page, Quarantined):
            yield page
            continue
        try:
            text = decode(page.raw, page.kind == "html", page.charset)
        except ValueError as error:
            yield Quarantined(source.name, member.path, page.number, f"not readable as text: {error}")
            continue
        metadata = {"line": page.number, "format": page.kind, "url": page.url, "date": page.date}
        yield _document(source, text, member.path, {key: value for key, value in metadata.items() if value})


def _document_of_file(source: Source, archive: Archive, member: Member) -> Document | Quarantined:
    suffix = suffix_of(member.path)
    kind = FORMATS.get(suffix.removesuffix(".gz"))
    if kind is None:
        known = ", ".join(filter(None, (*FORMATS, *ROW_FORMATS, *WARC_FORMATS)))
        return Quarantined(source.name, member.path, None, f"unknown format; readable: {known}. Narrow `include`")
    with archive.open(member.path) as packed:
        file = gunzipped(packed, member) if suffix.endswith(".gz") else packed
        try:
            raw = file.read(MAX_FILE_BYTES + 1)
        except UNREADABLE as error:
            return Quarantined(source.name, member.path, None, f"damaged: {error}")
    if len(raw) > MAX_FILE_BYTES:
        return Quarantined(source.name, member.path, None, f"more than {MAX_FILE_BYTES} bytes")
    if not raw.strip():
        return Quarantined(source.name, member.path, None, "an empty file")
    if suffix == "" and _PAGE.match(raw):  # an address without a suffix is mostly a page
        kind = "html"
    try:
        text = decode(raw, kind == "html")
    except ValueError as error:
        return Quarantined(source.name, member.path, None, f"not readable as text: {error}")
    return _document(source, text, member.path, {"format": kind})


def read_documents(
    source: Source, archive: Archive, limits: Limits, passed_over: Counter[str]
) -> Iterator[Document | Quarantined]:
    """The documents of `source` as far as `limits` go: one a row, a page of a WARC file, or any other file.

    `passed_over` counts what is whole and gives no text, by reason.
    """
    documents = size = 0
    of_conversations = isinstance(parse_origin(source.origin), ConversationsOrigin)
    for member in matching(archive, source.include):
        if documents >= limits.documents:
            passed_over["beyond max_documents"] += 1
            continue
        suffix = suffix_of(member.path)
        found: Iterator[Document | Quarantined]
        if of_conversations:
            found = _documents_of_conversations(source, archive, member, passed_over)
        elif suffix in ROW_FORMATS:
            found = documents_of_rows(source, member.path, read_rows(source.name, archive, member))
        elif suffix in WARC_FORMATS:
            found = _documents_of_pages(source, archive, member, passed_over)
        elif size + member.size <= limits.size:
            found = iter([_document_of_file(source, archive, member)])
        else:
            passed_over["beyond max_megabytes"] += 1
            continue
        for document in found:
            if isinstance(document, Quarantined):
                yield document
                continue
            length = len(document.text.encode())
            if documents >= limits.documents or size + length > limits.size:
                if suffix in (*ROW_FORMATS, *WARC_FORMATS):  # counting the rest would mean reading it
                    passed_over["beyond the limits, with all after it"] += 1
                    return
                passed_over["beyond the limits"] += 1
                continue
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
            return f"label {category!r} is {value!r:.80}, expected 0 or 1"
        labels[category] = int(value)
    return labels


def _moderation_row(source: Source, row: Row) -> Row | str:
    text, labels = row.get(source.columns.get("text", "text")), _labels(source, row)
    if isinstance(labels, str):
        return labels
    if not isinstance(text, str) or not text.strip():
        return "`text` must be a text that is not empty"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"half of a surrogate pair, which is no text: {error.reason}"
    return {"text": text, "labels": labels}


def read_moderation(source: Source, archive: Archive, max_texts: int) -> Iterator[Row | Quarantined]:
    """The first `max_texts` rows {text, labels} of a moderation source in JSONL, CSV or Parquet."""
    taken = 0
    for member in matching(archive, source.include):
        if suffix_of(member.path) not in ROW_FORMATS:
            yield Quarantined(source.name, member.path, None, f"moderation sources are rows: {', '.join(ROW_FORMATS)}")
            continue
        for found in read_rows(source.name, archive, member):
            if taken >= max_texts:
                return
            row = found if isinstance(found, Quarantined) else _moderation_row(source, found.row)
            if isinstance(row, str):
                yield Quarantined(source.name, member.path, found.number, row)  # type: ignore[union-attr]
                continue
            taken += not isinstance(row, Quarantined)
            yield row

"""Reads the rows of JSONL, CSV and Parquet files one by one; what can't be read is quarantined with its reason."""

import csv
import datetime
import json
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO, Any, NamedTuple

from pipelines.core.jsonl import Row
from pipelines.data.archives import UNREADABLE, Archive, Member, gunzipped

MAX_LINE_BYTES = 16 << 20  # one row
BATCH_ROWS = 64  # of a Parquet file, held decoded at once
PAGE_BUFFER_BYTES = 1 << 20  # read ahead of each Parquet column
ROW_FORMATS = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".parquet")


class Quarantined(NamedTuple):
    """Something of a source that can't be read: which file, which line or record (None: the whole file), and why."""

    source: str
    path: str
    line: int | None
    reason: str

    def to_row(self) -> Row:
        return self._asdict()


class Numbered(NamedTuple):
    """A row and its line in the file, or its number where the format has no lines; both count from 1."""

    number: int
    row: Row


class _Line(NamedTuple):
    number: int
    content: bytes | None  # None: longer than MAX_LINE_BYTES


class _Unreadable(Exception):
    """The rest of a file can't be read, from line `number` on."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(reason)
        self.number = number


def suffix_of(path: str) -> str:
    """The last suffix in lower case, with the one before it when the last is `.gz`."""
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


def _too_long() -> str:
    return f"longer than {MAX_LINE_BYTES >> 20} MiB"


def _json_row(number: int, content: bytes | None) -> Numbered | str:
    if content is None:
        return _too_long()
    try:
        row = json.loads(content)
    except ValueError as error:
        return f"not valid JSON: {error}"
    except RecursionError:
        return "not valid JSON: nested too deep"
    return Numbered(number, row) if isinstance(row, dict) else f"a {type(row).__name__}, expected a JSON object"


def _json_rows(source: str, path: str, file: IO[bytes]) -> Iterator[Numbered | Quarantined]:
    for number, content in _lines(file):
        if content is None or content.strip():
            row = _json_row(number, content)
            yield row if isinstance(row, Numbered) else Quarantined(source, path, number, row)


def _csv_text(file: IO[bytes]) -> Iterator[str]:
    for number, content in _lines(file):
        if content is None:
            raise _Unreadable(number, _too_long())
        try:
            yield content.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise _Unreadable(number, str(error)) from error


def _csv_rows(source: str, path: str, file: IO[bytes]) -> Iterator[Numbered | Quarantined]:
    csv.field_size_limit(MAX_LINE_BYTES)
    rows = csv.DictReader(_csv_text(file))
    try:
        for row in rows:
            if None in row or None in row.values():  # DictReader's marks for a cell too many or too few
                columns = len(rows.fieldnames or ())
                yield Quarantined(source, path, rows.line_num, f"not the {columns} columns of the first line")
            else:
                yield Numbered(rows.line_num, row)
    except (csv.Error, _Unreadable) as error:  # where the next row begins can't be known
        line = error.number if isinstance(error, _Unreadable) else rows.line_num + 1
        yield Quarantined(source, path, line, f"not valid CSV from here on: {error}")


def plain(value: Any) -> Any:
    """Dates and times as ISO 8601, everything else as it is."""
    return value.isoformat() if isinstance(value, datetime.date | datetime.datetime) else value


def _parquet_rows(source: str, path: str, file: IO[bytes]) -> Iterator[Numbered | Quarantined]:
    """Rows of a Parquet file, a few at a time: neither a row group nor a column of it is ever whole in memory."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        with ParquetFile(file, buffer_size=PAGE_BUFFER_BYTES, pre_buffer=False) as table:
            # Lists (embeddings, say) are never metadata and would cost the most.
            wanted = [field.name for field in table.schema_arrow if not pyarrow.types.is_nested(field.type)]
            wanted += [field.name for field in table.schema_arrow if pyarrow.types.is_struct(field.type)]
            for batch in table.iter_batches(BATCH_ROWS, columns=wanted, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield Numbered(number, {key: plain(value) for key, value in row.items()})
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        yield Quarantined(source, path, number + 1 if number else None, f"not valid Parquet from here on: {error}")


def read_rows(source: str, archive: Archive, member: Member) -> Iterator[Numbered | Quarantined]:
    """The rows of one file whose suffix is one of ROW_FORMATS, in order; damage ends it with a Quarantined."""
    suffix = suffix_of(member.path)
    formats = {".csv": _csv_rows, ".parquet": _parquet_rows}
    read = formats.get(suffix.removesuffix(".gz"), _json_rows)
    line = count = 0
    with archive.open(member.path) as raw:
        file = gunzipped(raw, member) if suffix.endswith(".gz") else raw
        try:
            for found in read(source, member.path, file):
                count += 1
                line = found.number if isinstance(found, Numbered) else found.line or line
                yield found
        except UNREADABLE as error:
            yield Quarantined(source, member.path, line + 1, f"damaged from here on: {error}")
            return
    if not count:
        yield Quarantined(source, member.path, None, "an empty file" if not member.size else "no row in the file")

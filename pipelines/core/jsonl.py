"""JSON Lines on disk: streaming reads that name the bad line, atomic and canonical writes."""

import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, cast

from pipelines.core.errors import BadInput

Row = dict[str, Any]


def _open_read(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb"))


@contextmanager
def _open_write(path: Path) -> Iterator[IO[bytes]]:
    with path.open("wb") as file:
        if path.suffix != ".gz":
            yield file
            return
        # No name and no time in the header: same rows, same bytes.
        with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0, compresslevel=5) as compressed:
            yield cast(IO[bytes], compressed)


def read_rows(path: Path) -> Iterator[Row]:
    """Yield one object per non-empty line; `.gz` is read through gzip.

    Raises:
        BadInput: a line is not a JSON object; the message has file and line number.
    """
    if not path.exists():
        raise BadInput(f"{path} does not exist")
    with _open_read(path) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise BadInput(f"{path}:{number} is not valid JSON ({error}); correct or remove the line") from error
            if not isinstance(row, dict):
                raise BadInput(f"{path}:{number} holds a {type(row).__name__}, expected a JSON object")
            yield row


def encode(value: object) -> bytes:
    """Canonical JSON: sorted keys, no spaces, UTF-8; equal values give equal bytes."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


@contextmanager
def open_rows(path: Path) -> Iterator[Callable[[Row], int]]:
    """Give a function that appends one row and says its bytes; the file appears at `path` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}")  # keeps the suffix, which decides on gzip
    with _open_write(partial) as out:
        yield lambda row: out.write(encode(row) + b"\n")
    partial.replace(path)


@contextmanager
def open_shards(folder: Path, name: str, size: int) -> Iterator[Callable[[Row], None]]:
    """As `open_rows`, but a new file `<name>-<number>.jsonl.gz` begins where one has `size` bytes of rows."""
    with ExitStack() as current:
        number = written = 0
        write = current.enter_context(open_rows(folder / f"{name}-{number:05d}.jsonl.gz"))

        def append(row: Row) -> None:
            nonlocal number, written, write
            if written >= size:
                current.close()
                number, written = number + 1, 0
                write = current.enter_context(open_rows(folder / f"{name}-{number:05d}.jsonl.gz"))
            written += write(row)

        yield append


def write_rows(path: Path, rows: Iterable[Row]) -> int:
    """Write `rows` to `path` atomically and canonically; returns how many there were."""
    count = 0
    with open_rows(path) as write:
        for row in rows:
            write(row)
            count += 1
    return count


def read_json(path: Path) -> Any:
    """Read one JSON document.

    Raises:
        BadInput: the file is missing or not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise BadInput(f"{path} does not exist") from error
    except ValueError as error:
        raise BadInput(f"{path} is not valid JSON ({error})") from error


def write_json(path: Path, value: object) -> None:
    """Write one JSON document atomically, indented and with sorted keys."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(value, ensure_ascii=False, sort_keys=True, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)

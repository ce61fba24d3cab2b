"""Reads the pages of WARC files: responses and resources that are HTML or text, and the plain texts of WET files."""

import io
import re
from collections import Counter
from collections.abc import Iterator
from typing import IO, Any, NamedTuple, cast

from pipelines.data.archives import UNREADABLE, Archive, Damaged, Member, gunzipped
from pipelines.data.rows import Quarantined

MAX_RECORD_BYTES = 32 << 20  # one page; larger ones are downloads or attacks
WARC_FORMATS = (".warc", ".warc.gz", ".wet", ".wet.gz")
PAGE_RECORDS = ("response", "resource", "conversion")
KINDS = {"text/html": "html", "application/xhtml+xml": "html", "text/plain": "text"}
_CHARSET = re.compile(r"""charset\s*=\s*["']?([\w-]+)""", re.IGNORECASE | re.ASCII)


class Page(NamedTuple):
    """One page as it was fetched."""

    number: int  # of the record in its file, from 1
    kind: str  # html or text
    raw: bytes
    charset: str | None  # as the HTTP header says it
    url: str
    date: str  # ISO 8601, of the fetch; empty when the record has none


class _Pieces:
    """A file that gives what it has: at damage, what came before is not lost."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = cast(io.BufferedReader, file)
        self.end = b""  # the last bytes read

    def read(self, size: int) -> bytes:
        content = self._file.read1(size)
        self.end = (self.end + content[-4:])[-4:]
        return content


class _NoPage(NamedTuple):
    """A record that is whole and holds no page."""

    reason: str


def _http_headers(stream: Any) -> Any:
    from warcio.statusandheaders import StatusAndHeadersParser

    return StatusAndHeadersParser(["HTTP/1.0", "HTTP/1.1", "HTTP/2"], verify=False).parse(stream)


def _page(record: Any, number: int) -> Page | _NoPage | str:
    """The page of a record, or why it has none, or (as text) why it can't be read."""
    if record.rec_type not in PAGE_RECORDS:
        return _NoPage(f"record type {record.rec_type}")
    about = record.rec_headers
    if record.length > MAX_RECORD_BYTES:
        return f"{record.length} bytes, more than {MAX_RECORD_BYTES}"
    headers = about
    if (about.get_header("Content-Type") or "").startswith("application/http"):
        try:
            headers = record.http_headers = _http_headers(record.raw_stream)
        except (EOFError, ValueError, AttributeError) as error:
            return f"no HTTP header: {error!r:.200}"
        if headers.get_statuscode() != "200":
            return _NoPage(f"status {headers.get_statuscode()}")
    kind, _, rest = (headers.get_header("Content-Type") or "").partition(";")
    kind = kind.strip().lower()
    if kind not in KINDS:
        return _NoPage(f"content type {kind[:60] or 'not given'}")
    raw = record.content_stream().read(MAX_RECORD_BYTES + 1)
    if len(raw) > MAX_RECORD_BYTES:
        return f"body unpacks to more than {MAX_RECORD_BYTES} bytes"
    charset = _CHARSET.search(rest)
    address, date = about.get_header("WARC-Target-URI") or "", about.get_header("WARC-Date") or ""
    return Page(number, KINDS[kind], raw, charset and charset[1], address, date)


def _whole(record: Any, number: int) -> Page | _NoPage | str:
    """As `_page`, once it is sure that the record is all there.

    Raises:
        Damaged: it is not, which the library takes for its end.
    """
    if not record.rec_type or record.length is None:
        return "no WARC-Type or no Content-Length"
    found = _page(record, number)
    while record.raw_stream.read(1 << 16):
        pass
    missing = record.raw_stream.limit
    if missing > 0:
        raise Damaged(f"cut short: {missing} bytes are missing")
    return found


def _records(file: IO[bytes]) -> Iterator[Any]:
    """The records of a WARC file, each to be read before the next one.

    Raises:
        Damaged: from here on there is no record to be made out.
    """
    from warcio.archiveiterator import ArchiveIterator
    from warcio.exceptions import ArchiveLoadFailed

    pieces = _Pieces(file)
    records = iter(ArchiveIterator(pieces, no_record_parse=True))
    while True:
        try:
            record = next(records, None)
        except (ArchiveLoadFailed, ValueError, AttributeError) as error:  # the last where a header is missing
            raise Damaged(f"no WARC header: {error!r:.200}") from error
        if record is None:
            break
        yield record
    if pieces.end and not pieces.end.endswith((b"\n\r\n", b"\n\n")):  # the library takes half a header for the end
        raise Damaged("the file ends inside a record")


def read_pages(
    source: str, archive: Archive, member: Member, passed_over: Counter[str]
) -> Iterator[Page | Quarantined]:
    """The pages of one WARC file in order; `passed_over` counts the records that hold no page, by reason."""
    number = 0
    with archive.open(member.path) as raw:
        # Python's gzip checks the length of each part, which WARC libraries let pass when a file is cut short.
        file = gunzipped(raw, member) if member.path.lower().endswith(".gz") else raw
        try:
            for record in _records(file):
                found = _whole(record, number + 1)
                number += 1
                if isinstance(found, _NoPage):
                    passed_over[found.reason] += 1
                else:
                    yield found if isinstance(found, Page) else Quarantined(source, member.path, number, found)
        except UNREADABLE as error:
            yield Quarantined(source, member.path, number + 1, f"damaged from this record on: {error}")
            return
    if not number:
        yield Quarantined(source, member.path, None, "an empty file" if not member.size else "no WARC record")

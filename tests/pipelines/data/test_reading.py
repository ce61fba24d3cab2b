"""Reading sources: every text arrives or is quarantined with file, line and reason."""

import gzip
import io
from collections import Counter
from collections.abc import Iterable, Iterator

import pytest

from pipelines.core.records import Document
from pipelines.core.sections.data import Source
from pipelines.data import reading, rows
from pipelines.data.archives import Archive, Member
from pipelines.data.reading import Limits, read_moderation
from pipelines.data.rows import Quarantined
from tests.pipelines.data.sources import corpus_source

WIDE = Limits(documents=100, size=1 << 20)


class Files:
    """An archive in memory."""

    def __init__(self, **files: bytes) -> None:
        self.files = {name.replace("__", "."): content for name, content in files.items()}

    def members(self) -> list[Member]:
        return [Member(name, len(content)) for name, content in self.files.items()]

    def open(self, path: str) -> io.BytesIO:
        return io.BytesIO(self.files[path])


def read_documents(source: Source, archive: Archive, limits: Limits) -> Iterator[Document | Quarantined]:
    return reading.read_documents(source, archive, limits, Counter())


def split(found: Iterable[Document | Quarantined]) -> tuple[list[str], list[tuple[str, int | None, str]]]:
    everything = list(found)
    return (
        [item.text for item in everything if isinstance(item, Document)],
        [(item.path, item.line, item.reason) for item in everything if isinstance(item, Quarantined)],
    )


def test_good_rows_arrive_and_each_bad_line_is_named() -> None:
    lines = b'{"text": "one", "url": "u"}\n{"text": \n\n[1]\n{"text": ""}\n{"body": "x"}\n{"text": "two"}\n'
    texts, bad = split(read_documents(corpus_source(), Files(a__jsonl=lines), WIDE))
    assert texts == ["one", "two"]
    assert [line for _, line, _ in bad] == [2, 4, 5, 6]
    assert "not valid JSON" in bad[0][2]
    assert "expected a JSON object" in bad[1][2]


def test_metadata_and_licence_stay_with_the_text() -> None:
    row = b'{"content": "one", "url": "u", "deep": {"x": 1}}\n'
    [document] = read_documents(corpus_source(text="content"), Files(a__jsonl=row), WIDE)
    assert isinstance(document, Document)
    assert document.license == "MIT"
    assert document.metadata == {"url": "u", "path": "a.jsonl", "line": 1, "format": "text"}


def test_damaged_gzip_keeps_what_came_before_and_names_the_line() -> None:
    rows = b"".join(b'{"text": "%d %s"}\n' % (number, bytes(str(number**9), "ascii")) for number in range(3000))
    packed = gzip.compress(rows)
    texts, bad = split(
        read_documents(corpus_source(), Files(a__jsonl__gz=packed[: len(packed) // 2]), Limits(9999, 1 << 30))
    )
    assert 0 < len(texts) < 3000
    [(path, line, reason)] = bad
    assert (path, line) == ("a.jsonl.gz", len(texts) + 1)
    assert "damaged from here on" in reason


def test_a_line_that_is_too_long_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_LINE_BYTES", 1 << 10)
    lines = b'{"text": "' + b"x" * 5000 + b'"}\n{"text": "next"}\n'
    texts, bad = split(read_documents(corpus_source(), Files(a__jsonl=lines), WIDE))
    assert texts == ["next"]
    assert [line for _, line, _ in bad] == [1]


def test_files_that_are_no_text_are_quarantined() -> None:
    files = Files(a__txt=b"fine", b__txt=b"\xff\xfe broken", c__txt=b"", d__png=b"\x89PNG", e__html=b"<p>\xe9t\xe9</p>")
    texts, bad = split(read_documents(corpus_source(), files, WIDE))
    assert texts == ["fine"]
    assert [path for path, _, _ in bad] == ["b.txt", "c.txt", "d.png", "e.html"]


def test_a_page_says_its_own_charset() -> None:
    page = b'<meta charset="iso-8859-1"><p>\xe9t\xe9</p>'
    texts, bad = split(read_documents(corpus_source(), Files(a__html=page), WIDE))
    assert "été" in texts[0]
    assert not bad


def test_limits_hold_first_by_path_and_pass_over_what_does_not_fit() -> None:
    files = Files(c__txt=b"ccc", a__txt=b"aa", b__txt=b"b" * 50)
    assert split(read_documents(corpus_source(), files, Limits(10, 6)))[0] == ["aa", "ccc"]
    assert split(read_documents(corpus_source(), files, Limits(1, 100)))[0] == ["aa"]


def test_ids_are_the_content_and_place_alone() -> None:
    first, second = (list(read_documents(corpus_source(), Files(a__txt=b"x", b__txt=b"x"), WIDE)) for _ in range(2))
    assert first == second
    assert isinstance(first[0], Document) and isinstance(first[1], Document)
    assert first[0].id != first[1].id


def test_moderation_rows_come_from_csv_by_the_named_columns() -> None:
    table = b'is_offensive,text\n0,"hello, you"\n1,go away\n2,what\n1,\n'
    found = list(
        read_moderation(corpus_source("moderation", text="text", harassment="is_offensive"), Files(a__csv=table), 10)
    )
    assert found[:2] == [
        {"text": "hello, you", "labels": {"harassment": 0}},
        {"text": "go away", "labels": {"harassment": 1}},
    ]
    assert [item.line for item in found[2:] if isinstance(item, Quarantined)] == [4, 5]


def test_moderation_rows_come_from_jsonl_with_labels_and_stop_at_the_limit() -> None:
    rows = b'{"text": "a", "labels": {"harassment": 1}}\n' * 5
    assert len(list(read_moderation(corpus_source("moderation"), Files(a__jsonl=rows), 3))) == 3

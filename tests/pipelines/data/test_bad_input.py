"""Bad input: each case is quarantined with file, line and reason, or stops with an error; good neighbours arrive."""

import gzip
import io
import json
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.core.errors import BadInput
from pipelines.core.jsonl import encode
from pipelines.core.records import Document
from pipelines.core.sections.data import Source
from pipelines.data import archives
from pipelines.data.archives import open_archive
from pipelines.data.extraction import extract_html
from pipelines.data.reading import Limits, read_documents, read_moderation
from pipelines.data.rows import Quarantined
from pipelines.data.steps import Unusable
from tests.pipelines.data.sources import corpus_source, read_file

LINE = b'{"text": "good"}\n'


@pytest.mark.parametrize(
    ("name", "content", "good", "line", "reason"),
    [
        ("a.jsonl", LINE + b'{"text": "' + b"x" * (50 << 20) + b'"}\n' + LINE, 2, 2, "longer than 16 MiB"),
        ("a.jsonl", LINE + b'{"text": "\xff"}\n' + LINE, 2, 2, "not valid JSON"),
        ("a.jsonl", LINE + b"[" * 200_000 + b"\n" + LINE, 2, 2, "nested too deep"),
        ("a.jsonl", LINE + b'["good"]\n' + LINE, 2, 2, "a list, expected a JSON object"),
        ("a.jsonl", LINE + b'{"text": ["good"]}\n' + LINE, 2, 2, "'text' must be a text"),
        ("a.jsonl", LINE + b'{"text": "\\ud800"}\n' + LINE, 2, 2, "half of a surrogate pair"),
        ("a.jsonl", LINE + b'{"text": "x", "title": "\\udfff"}\n' + LINE, 2, 2, "half of a surrogate pair"),
        ("a.jsonl", b"", 0, None, "an empty file"),
        ("a.jsonl", b"\n\n", 0, None, "no row in the file"),
        ("a.jsonl.gz", gzip.compress(LINE * 9000)[:-30], 1, None, "damaged from here on"),
        ("a.jsonl.gz", b"not packed", 0, 1, "damaged from here on"),
        ("a.jsonl.gz", gzip.compress(b"\0" * (256 << 20)), 0, 1, "unpacks to more than"),
        ("a.csv", b"text\ngood\n" + b"x" * (50 << 20) + b"\n", 1, 3, "longer than 16 MiB"),
        ("a.csv", b"text,id\ngood,1\none\nmore,2,3\ngood,4\n", 2, 3, "not the 2 columns of the first line"),
        ("a.csv", b"text\ngood\n\xff\n", 1, 3, "can't decode"),
        ("a.csv", b'text\ngood\n"' + b"never closed\n" * 1_500_000, 1, None, "not valid CSV from here on"),
        ("a.csv", b"", 0, None, "an empty file"),
        ("a.txt", b"caf\xe9", 0, None, "not readable as text"),
        ("a.txt", b" \n", 0, None, "an empty file"),
        ("a.txt", b"x" * (33 << 20), 0, None, "more than 33554432 bytes"),
        ("a.txt.gz", gzip.compress(b"good text")[:-4], 0, None, "damaged"),
        ("a.html", b'<meta charset="nonsense">\xe9', 0, None, "unknown charset"),
        ("a.png", b"\x89PNG", 0, None, "unknown format"),
    ],
)
def test_what_is_bad_is_quarantined_and_its_neighbours_arrive(
    tmp_path: Path, name: str, content: bytes, good: int, line: int | None, reason: str
) -> None:
    result = read_file(tmp_path / name, content)
    assert len(result.documents) >= good
    first = result.quarantined[0]
    assert (first.source, first.path) == ("s", name)
    assert reason in first.reason
    if line is not None:
        assert first.line == line
    for item in result.quarantined:
        encode(item.to_row())


def tar_of(name: str, content: bytes, mode: str = "w:gz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:  # type: ignore[call-overload]
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def zip_of(name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["w:gz", "w:bz2", "w:xz", "zip"])
def test_an_archive_that_unpacks_to_far_more_is_refused(tmp_path: Path, kind: str) -> None:
    zeros = b"\0" * (100 << 20)
    name = "bomb.zip" if kind == "zip" else f"bomb.tar.{kind[2:]}"
    content = zip_of("a.txt", zeros) if kind == "zip" else tar_of("a.txt", zeros, kind)
    with pytest.raises(BadInput, match=r"source s .*bomb.* unpacks to"):
        read_file(tmp_path / name, content)


def test_an_archive_of_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(4):
            archive.writestr(f"{number}.txt", "x")
    with pytest.raises(BadInput, match="more than 3 members"):
        read_file(tmp_path / "many.zip", out.getvalue())


@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_a_truncated_archive_is_refused_by_name(tmp_path: Path, make: Callable[[str, bytes], bytes]) -> None:
    content = make("a.jsonl", bytes(range(256)) * 4000)
    name = "cut.zip" if make is zip_of else "cut.tar.gz"
    with pytest.raises(BadInput, match=f"source s .*{name} is damaged"):
        read_file(tmp_path / name, content[: len(content) // 2])


def test_a_name_that_is_no_text_can_be_written_down(tmp_path: Path) -> None:
    content = tar_of("p/\udce9t\udce9.txt", b"good")
    result = read_file(tmp_path / "names.tar.gz", content)
    assert [document.metadata["path"] for document in result.documents] == [r"p/\udce9t\udce9.txt"]
    encode(result.documents[0].to_row())


@pytest.mark.parametrize(
    "body",
    [
        "<div>" * 200_000 + "x",
        "<div>" * 20_000 + "text " * 50 + "</div>" * 20_000,
        "<table><tr><td>" * 20_000,
        "<b><i>" * 300_000,
        "&" * 1_000_000,
        "<!--" * 500_000,
    ],
    ids=["unclosed", "closed", "tables", "inline", "entities", "comments"],
)
def test_a_page_nested_without_end_leaves_the_stage_running(tmp_path: Path, body: str) -> None:
    [page] = read_file(tmp_path / "bomb.html", f"<html><body>{body}".encode()).documents
    try:
        assert isinstance(extract_html(page), Document)
    except Unusable as error:
        assert str(error)


def test_a_bad_moderation_row_is_named(tmp_path: Path) -> None:
    rows = [{"text": "a", "labels": {"harassment": 2}}, {"text": "\ud800", "labels": {"harassment": 1}}, {"text": "b"}]
    path = tmp_path / "m.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"text": "c", "labels": {"harassment": 0}}\n')
    source = corpus_source(use="moderation")
    with open_archive(path, "source s") as archive:
        found = list(read_moderation(source, archive, 10))
    assert [item.line for item in found if isinstance(item, Quarantined)] == [1, 2, 3]
    assert found[3] == {"text": "c", "labels": {"harassment": 0}}


def test_what_does_not_fit_the_limits_is_counted(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.txt", "x" * 50)
        archive.writestr("b.txt", "fits")
    (tmp_path / "a.zip").write_bytes(out.getvalue())
    passed_over: Counter[str] = Counter()
    source: Source = corpus_source()
    with open_archive(tmp_path / "a.zip", "source s") as opened:
        documents = list(read_documents(source, opened, Limits(10, 10), passed_over))
    assert len(documents) == 1
    assert passed_over == {"beyond max_megabytes": 1}

"""Sources: every format by every way it can come, with its metadata, in bounded memory."""

import datetime
import gzip
import hashlib
import io
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.core.errors import BadInput
from pipelines.core.records import Document
from pipelines.core.sections.data import Source
from pipelines.data import hub
from pipelines.data.downloads import PARTIAL, STALE_S, Downloads, remove_stale
from pipelines.data.origins import HubOrigin, parse_origin
from pipelines.data.package_index import IndexSettings
from pipelines.data.reading import Limits, read_documents
from pipelines.data.rows import Quarantined
from pipelines.ingest import locate
from tests.pipelines.data.sources import WIDE, corpus_source, read_file

COMMIT = "4fa12cab4f5f53670b05125fb9d2873af587d231"


def parquet_of(columns: dict[str, Any], row_group: int = 2) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, row_group_size=row_group)
    return out.getvalue()


def warc_record(
    body: bytes, kind: str = "response", content_type: str = "text/html", url: str = "http://e.org/a", head: str = ""
) -> bytes:
    http = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n{head}\r\n".encode() if kind == "response" else b""
    block_type = "application/http; msgtype=response" if http else content_type
    lines = [
        "WARC/1.0",
        f"WARC-Type: {kind}",
        "WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-000000000000>",
        f"WARC-Target-URI: {url}",
        "WARC-Date: 2026-01-02T03:04:05Z",
        f"Content-Type: {block_type}",
        f"Content-Length: {len(http) + len(body)}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + http + body + b"\r\n\r\n"


def test_parquet_rows_keep_their_metadata(tmp_path: Path) -> None:
    columns = {
        "content": ["one", "two", "three"],
        "link": ["u1", "u2", "u3"],
        "seen": [datetime.datetime(2026, 1, day, tzinfo=datetime.UTC) for day in (1, 2, 3)],
        "about": [{"license": "CC0-1.0", "title": "x"}, {"license": None, "title": "y"}, None],
        "embedding": [[0.5] * 4] * 3,
    }
    result = read_file(
        tmp_path / "a.parquet",
        parquet_of(columns),
        text="content",
        url="link",
        date="seen",
        license="about.license",
        title="about.title",
    )
    assert [document.text for document in result.documents] == ["one", "two", "three"]
    assert [document.license for document in result.documents] == ["CC0-1.0", "MIT", "MIT"]
    assert result.documents[0].metadata == {
        "url": "u1",
        "date": "2026-01-01T00:00:00+00:00",
        "title": "x",
        "path": "a.parquet",
        "line": 1,
        "format": "text",
    }
    assert not result.quarantined


def test_a_column_of_pages_is_html(tmp_path: Path) -> None:
    result = read_file(tmp_path / "a.jsonl", b'{"page": "<p>x</p>", "url": "u"}\n', html="page")
    assert result.documents[0].metadata["format"] == "html"


def test_damaged_parquet_is_named(tmp_path: Path) -> None:
    whole = parquet_of({"text": [f"row {number} " + "word " * 50 for number in range(4000)]}, row_group=500)
    cut = read_file(tmp_path / "cut.parquet", whole[: len(whole) // 2])
    assert not cut.documents
    assert cut.quarantined[0].line is None
    assert "not valid Parquet" in cut.quarantined[0].reason
    broken = bytearray(whole)
    broken[len(whole) // 2 : len(whole) // 2 + 400] = b"\0" * 400
    result = read_file(tmp_path / "broken.parquet", bytes(broken))
    assert 0 < len(result.documents) < 4000
    assert "not valid Parquet from here on" in result.quarantined[0].reason
    assert "not valid Parquet" in read_file(tmp_path / "empty.parquet", b"").quarantined[0].reason


PAGES = [
    warc_record(b"software: crawler", "warcinfo", "application/warc-fields"),
    warc_record(b"GET / HTTP/1.1\r\n\r\n", "request", "application/http; msgtype=request"),
    warc_record(b"<p>one</p>" * 9),
    warc_record("<p>été</p>".encode("latin-1"), content_type="text/html; charset=iso-8859-1", url="http://e.org/b"),
    warc_record(gzip.compress(b"<p>packed</p>"), head="Content-Encoding: gzip\r\n", url="http://e.org/c"),
    warc_record(b"\x89PNG", content_type="image/png", url="http://e.org/d"),
    warc_record(b"plain words", "conversion", "text/plain", url="http://e.org/e"),
]


@pytest.mark.parametrize("name", ["crawl.warc", "crawl.warc.gz"])
def test_the_pages_of_a_crawl_arrive_with_address_and_date(tmp_path: Path, name: str) -> None:
    content = b"".join(map(gzip.compress, PAGES)) if name.endswith(".gz") else b"".join(PAGES)
    result = read_file(tmp_path / name, content)
    assert [document.text for document in result.documents] == [
        "<p>one</p>" * 9,
        "<p>été</p>",
        "<p>packed</p>",
        "plain words",
    ]
    assert result.documents[0].metadata == {
        "line": 3,
        "format": "html",
        "url": "http://e.org/a",
        "date": "2026-01-02T03:04:05Z",
        "path": name,
    }
    assert result.documents[3].metadata["format"] == "text"
    assert not result.quarantined
    assert result.passed_over == {
        "record type warcinfo": 1,
        "record type request": 1,
        "content type image/png": 1,
    }


@pytest.mark.parametrize("name", ["crawl.warc", "crawl.warc.gz"])
def test_a_crawl_that_is_cut_short_says_where(tmp_path: Path, name: str) -> None:
    records = [warc_record(f"<p>{number}</p>".encode() * 50) for number in range(10)]
    content = b"".join(map(gzip.compress, records)) if name.endswith(".gz") else b"".join(records)
    result = read_file(tmp_path / name, content[: len(content) - len(content) // 30])
    assert len(result.documents) == 9
    assert result.quarantined[-1].line == 10
    assert "cut short" in result.quarantined[-1].reason or "damaged" in result.quarantined[-1].reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file"),
        (b"no crawl at all\n" * 9, "damaged from this record on"),
        (warc_record(b"x").replace(b"Content-Length", b"Content-Size"), "no WARC-Type or no Content-Length"),
        (warc_record(gzip.compress(b"\0" * (64 << 20)), head="Content-Encoding: gzip\r\n"), "unpacks to more than"),
        (warc_record(b"x" * (33 << 20)), "more than 33554432"),
        (warc_record(b"caf\xe9"), "not readable as text"),
    ],
)
def test_bad_crawl_records_are_quarantined(tmp_path: Path, content: bytes, reason: str) -> None:
    result = read_file(tmp_path / "bad.warc", content)
    assert not result.documents
    assert reason in result.quarantined[0].reason


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def website(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path / "www"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()


def downloads(folder: Path) -> Downloads:
    return Downloads(folder, IndexSettings((), (), None), httpx.Client(trust_env=False), lambda seconds: None)


def test_every_format_comes_over_http(website: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = website
    files = {
        "a.jsonl": (b'{"text": "words"}\n', "text"),
        "a.jsonl.gz": (gzip.compress(b'{"text": "words"}\n'), "text"),
        "a.parquet": (parquet_of({"text": ["words"]}), "text"),
        "a.txt": (b"words", "text"),
        "a.txt.gz": (gzip.compress(b"words"), "text"),
        "a.html": (b"words", "html"),
        "page": (b"<!-- x -->\n<!DOCTYPE html><p>words", "html"),
        "a.warc": (warc_record(b"words"), "html"),
        "a.warc.gz": (gzip.compress(warc_record(b"words")), "html"),
    }
    for name, (content, kind) in files.items():
        (folder / name).write_bytes(content)
        source = corpus_source().model_copy(
            update={"origin": f"{address}/{name}", "sha256": hashlib.sha256(content).hexdigest()}
        )
        path = locate(source, parse_origin(source.origin), downloads(tmp_path / "cache"))
        assert path is not None
        assert path.name == name
        [document] = read_file(tmp_path / name, path.read_bytes()).documents
        assert document.text.endswith("words")
        assert document.metadata["format"] == kind


def test_a_source_that_cannot_be_had_says_why(website: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = website
    (folder / "a.txt").write_bytes(b"other words")
    with pytest.raises(BadInput, match=rf"has sha256 {hashlib.sha256(b'other words').hexdigest()}, .* pin 000"):
        downloads(tmp_path).url(f"{address}/a.txt", "0" * 64)
    with pytest.raises(BadInput, match="answers 404; correct the origin"):
        downloads(tmp_path).url(f"{address}/none.txt", "0" * 64)
    with pytest.raises(BadInput, match="can't be reached .*; check the network"):
        downloads(tmp_path).url("http://127.0.0.1:9/a.txt", "0" * 64)


HUB_FILES = {
    "README.md": b"about",
    "data/a.jsonl.gz": gzip.compress(b'{"text": "one", "about": {"license": "CC0"}}\n{broken\n'),
    "data/b.parquet": parquet_of({"text": ["two", "three"]}),
    "other/c.jsonl": b'{"text": "four"}\n',
}


def fake_hub(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A hub with HUB_FILES; returns the paths that are fetched from it, as they are."""
    fetched: list[str] = []

    def list_repo_tree(
        self: object, repo: str, path_in_repo: str | None, recursive: bool, revision: str, repo_type: str
    ) -> Iterator[Any]:
        assert (repo, revision, repo_type, recursive) == ("a/b", COMMIT, "dataset", True)
        prefix = f"{path_in_repo}/" if path_in_repo else ""
        for path, content in HUB_FILES.items():
            if path.startswith(prefix):
                yield huggingface_hub.RepoFile(path=path, size=len(content), oid="0" * 40)

    def hf_hub_download(repo: str, path: str, revision: str, repo_type: str, local_dir: Path) -> str:
        assert (repo, revision, repo_type) == ("a/b", COMMIT, "dataset")
        fetched.append(path)
        target = local_dir / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(HUB_FILES[path])
        return str(target)

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_tree", list_repo_tree)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    return fetched


def hub_source(*include: str, **columns: str) -> Source:
    return corpus_source(**columns).model_copy(update={"origin": f"hub:a/b@{COMMIT}", "include": list(include)})


def read_hub(source: Source, folder: Path, limits: Limits = WIDE) -> list[Document | Quarantined]:
    with hub.open_data_set(source, HubOrigin("a/b", COMMIT), folder) as files:
        return list(read_documents(source, files, limits, Counter()))


def test_a_hub_data_set_is_read_file_by_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fetched = fake_hub(monkeypatch)
    found = read_hub(hub_source("data/*", license="about.license"), tmp_path)
    documents = [item for item in found if isinstance(item, Document)]
    assert [document.text for document in documents] == ["one", "two", "three"]
    assert [document.license for document in documents] == ["CC0", "MIT", "MIT"]
    assert documents[0].metadata == {"path": "data/a.jsonl.gz", "line": 1, "format": "text"}
    [bad] = [item for item in found if isinstance(item, Quarantined)]
    assert (bad.path, bad.line) == ("data/a.jsonl.gz", 2)
    assert fetched == ["data/a.jsonl.gz", "data/b.parquet"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("limits", [Limits(1, 1 << 20), Limits(99, 2)])
def test_a_hub_is_asked_for_no_file_beyond_the_limits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limits: Limits
) -> None:
    fetched = fake_hub(monkeypatch)
    read_hub(hub_source("*.parquet", "*.jsonl.gz", "other/*"), tmp_path, limits)
    assert fetched == ["data/a.jsonl.gz"]


@pytest.mark.parametrize("error", [ConnectionError("no route"), httpx.ReadError("gone"), ValueError("no such repo")])
@pytest.mark.parametrize("part", ["list_repo_tree", "hf_hub_download"])
def test_a_hub_that_cannot_be_reached_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, part: str
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise error

    fake_hub(monkeypatch)
    monkeypatch.setattr(huggingface_hub.HfApi if part == "list_repo_tree" else huggingface_hub, part, fail)
    with pytest.raises(BadInput, match=rf"source s \(hub:a/b@{COMMIT}\).*{error}; check the name.*HF_ENDPOINT"):
        read_hub(hub_source("data/*"), tmp_path)


def fake_tool(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(exist_ok=True)
    tool = folder / name
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


@pytest.mark.parametrize(
    ("tool", "origin", "asked"),
    [
        ("npm", "npm:@scope/words@1.2.3", "pack --silent --ignore-scripts @scope/words@1.2.3"),
        ("apt-get", "debian:words-doc=1.2-3", "download words-doc=1.2-3"),
    ],
)
def test_npm_and_debian_packages_come_by_their_own_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str, origin: str, asked: str
) -> None:
    fake_tool(tmp_path / "bin", tool, f'[ "$*" = "{asked}" ] && printf words > words.tgz', monkeypatch)
    source = corpus_source().model_copy(update={"origin": origin, "sha256": hashlib.sha256(b"words").hexdigest()})
    path = locate(source, parse_origin(origin), downloads(tmp_path / "cache"))
    assert path is not None
    assert path.read_bytes() == b"words"
    with pytest.raises(BadInput, match="the parameters pin 000"):
        locate(source.model_copy(update={"sha256": "0" * 64}), parse_origin(origin), downloads(tmp_path / "cache"))
    fake_tool(tmp_path / "bin", tool, "echo 'E404 no such package' >&2; exit 1", monkeypatch)
    with pytest.raises(BadInput, match=rf"{origin.partition('@')[0]}.*E404 no such package; check the name"):
        locate(source, parse_origin(origin), downloads(tmp_path / "other"))
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    with pytest.raises(BadInput, match=f"needs {tool}, which is not on PATH"):
        locate(source, parse_origin(origin), downloads(tmp_path / "other"))


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_a_debian_package_is_read_without_installing_it(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        "Package: words\nVersion: 1\nArchitecture: all\nMaintainer: T <t@example.org>\nDescription: words\n"
    )
    (tree / "usr" / "share").mkdir(parents=True)
    (tree / "usr" / "share" / "a.txt").write_text("words")
    built = tmp_path / "built.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", tree, built], check=True, capture_output=True)
    [document] = read_file(tmp_path / "words.deb", built.read_bytes()).documents
    assert (document.text, document.metadata["path"]) == ("words", "./usr/share/a.txt")
    with pytest.raises(BadInput, match="is damaged"):
        read_file(tmp_path / "cut.deb", built.read_bytes()[:200])


def test_what_killed_downloads_left_is_removed_when_old(tmp_path: Path) -> None:
    for name in (f"{PARTIAL}old", f"{PARTIAL}new"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / f"{PARTIAL}tool").mkdir()
    for name in (f"{PARTIAL}old", f"{PARTIAL}tool"):
        then = (tmp_path / name).stat().st_mtime - STALE_S - 60
        os.utime(tmp_path / name, (then, then))
    remove_stale(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{PARTIAL}new"]


MEMORY = """
import re, sys
from pathlib import Path
from collections import Counter
from pipelines.data.archives import open_archive
from pipelines.data.reading import Limits, read_documents
from tests.pipelines.data.sources import corpus_source

with open_archive(Path(sys.argv[1]), "source s") as archive:
    count = sum(1 for _ in read_documents(corpus_source(), archive, Limits(1 << 40, 1 << 60), Counter()))
# Not ru_maxrss, which begins with that of the parent process.
print(count, int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) >> 10)
"""


def write_large(path: Path, rows: int) -> None:
    """A file of `rows` texts of 32 kB in one stream, or one row group."""
    text = random.Random(1).randbytes(16_000).hex()
    if path.suffix == ".parquet":
        texts = [f"{number} {text}" for number in range(rows)]
        pq.write_table(pa.table({"text": texts}), path, row_group_size=rows)
        return
    line = warc_record(text.encode()) if ".warc" in path.name else b'{"text": "%b"}\n' % text.encode()
    with gzip.open(path, "wb", 1) if path.suffix == ".gz" else path.open("wb") as out:
        for _ in range(rows):
            out.write(line)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet", "a.warc.gz"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, name: str) -> None:
    peaks = []
    for rows in (1500, 6000):  # 48 and 192 MB of text
        write_large(tmp_path / name, rows)
        words = [sys.executable, "-c", MEMORY, str(tmp_path / name)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        count, peak_mib = map(int, done.stdout.split())
        assert count == rows
        peaks.append(peak_mib)
    assert peaks[1] - peaks[0] < 48

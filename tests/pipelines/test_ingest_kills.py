"""ingest killed at any point and run again writes the bytes of an undisturbed run."""

import gzip
import hashlib
import json
import random
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from pipelines.core import artifacts
from tests.workspaces import kill_stage, make_workspace, run_stage

_CHOICE = random.Random(0)
REMOTE = gzip.compress(
    b"".join(b'{"text": "%b"}\n' % _CHOICE.randbytes(2000).hex().encode() for _ in range(2500)) + b"{broken\n", mtime=0
)


class Site(ThreadingHTTPServer):
    """Serves REMOTE; while `stuck` is set, only its first half."""

    def __init__(self) -> None:
        self.stuck = Event()
        self.freed = Event()
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(REMOTE)))
        self.end_headers()
        self.wfile.write(REMOTE[: len(REMOTE) // 2])
        if self.server.stuck.is_set():
            self.server.freed.wait(20)
            return
        self.wfile.write(REMOTE[len(REMOTE) // 2 :])

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Site() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.freed.set()
        server.shutdown()


def outputs(workspace: Path) -> dict[str, bytes]:
    folders = (artifacts.INGEST, artifacts.metrics_of("ingest").parent)
    return {
        str(path.relative_to(workspace)): path.read_bytes()
        for folder in folders
        for path in (workspace / folder).rglob("*")
        if path.is_file()
    }


def write_sources(folder: Path, address: str) -> list[dict[str, object]]:
    folder.mkdir()
    local, labelled = folder / "local.jsonl", folder / "labelled.jsonl"
    words = random.Random(1)
    local.write_text("".join(json.dumps({"text": words.randbytes(2000).hex()}) + "\n" for _ in range(6000)))
    labelled.write_text('{"text": "go away", "labels": {"harassment": 1}}\n' * 100)
    common: dict[str, object] = {"license": "MIT", "include": [], "columns": {}, "weight": 1.0}
    given: list[dict[str, object]] = [
        {"name": "remote", "use": "corpus", "origin": f"{address}/remote.jsonl.gz", "sha256": REMOTE},
        {"name": "local", "use": "corpus", "origin": f"file:{local}", "sha256": local.read_bytes()},
        {"name": "labelled", "use": "moderation", "origin": f"file:{labelled}", "sha256": labelled.read_bytes()},
    ]
    return [
        common | source | {"sha256": hashlib.sha256(content).hexdigest()}
        for source in given
        if isinstance(content := source["sha256"], bytes)
    ]


def test_a_killed_run_is_made_good_by_the_next(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = write_sources(tmp_path / "sources", f"http://127.0.0.1:{site.server_port}")
    overrides = [f"ingest.sources={json.dumps(sources)}", "ingest.max_documents=100000", "ingest.max_megabytes=100"]
    overrides.append("ingest.gpt2_tokenizer=null")
    monkeypatch.setenv("COLLOQUY_HOME", str(tmp_path / "first-home"))
    undisturbed = make_workspace(tmp_path / "undisturbed", overrides)
    done = run_stage(undisturbed, "pipelines.ingest")
    assert done.returncode == 0, done.stderr
    expected = outputs(undisturbed)
    assert len(expected) == 15

    home = tmp_path / "home"
    monkeypatch.setenv("COLLOQUY_HOME", str(home))
    killed = make_workspace(tmp_path / "killed", overrides)
    corpus = killed / artifacts.INGEST_CORPUS
    points = {
        "in the download": lambda: any(path.stat().st_size for path in (home / "downloads").glob(".partial-*")),
        "before the first row": lambda: (corpus / ".remote-00000.jsonl.gz").exists(),
        "between sources": lambda: (corpus / ".local-00000.jsonl.gz").exists(),
        "in the rows": lambda: (corpus / "local-00001.jsonl.gz").exists(),
    }
    for point, reached in points.items():
        site.stuck.set() if point == "in the download" else site.stuck.clear()
        shutil.rmtree(killed / artifacts.INGEST, ignore_errors=True)  # so that each point is met anew
        kill_stage(killed, "pipelines.ingest", reached)
        assert not (killed / artifacts.INGEST_MANIFEST).exists(), point
    done = run_stage(killed, "pipelines.ingest")  # over what the last kill left
    assert done.returncode == 0, done.stderr
    assert outputs(killed) == expected
    again = run_stage(killed, "pipelines.ingest")
    assert again.returncode == 0
    assert outputs(killed) == expected

"""Downloads: fetched once, checked, tried again where that can help, and clear about what went wrong."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from pipelines.core.errors import BadInput
from pipelines.data.downloads import PAUSES_S, Downloads
from pipelines.data.package_index import IndexSettings

BODY = b"some rows\n"
SHA = hashlib.sha256(BODY).hexdigest()
URL = "https://data.example/rows.jsonl"
INDEX = "https://registry.example/simple"


class Server:
    """Answers from a list of outcomes, then always with the body; counts requests."""

    def __init__(self, *outcomes: int | Exception, pages: dict[str, str] | None = None) -> None:
        self.outcomes = list(outcomes)
        self.pages = pages or {}
        self.requests: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(str(request.url))
        if self.outcomes:
            outcome = self.outcomes.pop(0)
            if isinstance(outcome, Exception):
                raise outcome
            return httpx.Response(outcome)
        if str(request.url) in self.pages:
            return httpx.Response(200, text=self.pages[str(request.url)], headers={"content-type": "text/html"})
        return httpx.Response(404 if INDEX in str(request.url) else 200, content=BODY)


def downloads(
    folder: Path, server: Server, pauses: list[float] | None = None, settings: IndexSettings | None = None
) -> Downloads:
    client = httpx.Client(transport=httpx.MockTransport(server))
    sleep: Callable[[float], None] = (pauses if pauses is not None else []).append
    return Downloads(folder, settings or IndexSettings((INDEX,), (), None), client, sleep)


def test_a_file_is_fetched_once(tmp_path: Path) -> None:
    server = Server()
    path = downloads(tmp_path, server).url(URL, SHA)
    assert path.read_bytes() == BODY
    assert path.name == "rows.jsonl"
    assert downloads(tmp_path, server).url(URL, SHA) == path
    assert len(server.requests) == 1


def test_a_damaged_copy_is_fetched_again(tmp_path: Path) -> None:
    server = Server()
    downloads(tmp_path, server).url(URL, SHA).write_bytes(b"rotten")
    assert downloads(tmp_path, server).url(URL, SHA).read_bytes() == BODY
    assert len(server.requests) == 2


def test_what_may_pass_is_tried_again_with_growing_pauses(tmp_path: Path) -> None:
    pauses: list[float] = []
    server = Server(503, httpx.ConnectError("refused"), 429)
    assert downloads(tmp_path, server, pauses).url(URL, SHA).read_bytes() == BODY
    assert pauses == list(PAUSES_S) == sorted(pauses)


def test_what_stays_is_an_error_that_names_the_address(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"{URL} answers 404"):
        downloads(tmp_path, Server(404)).url(URL, SHA)
    with pytest.raises(BadInput, match=rf"{URL} can't be reached \(refused\)"):
        downloads(tmp_path, Server(*[httpx.ConnectError("refused")] * 4)).url(URL, SHA)


def test_other_bytes_than_pinned_are_refused_and_not_kept(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=rf"has sha256 {SHA}, the parameters pin {'0' * 64}"):
        downloads(tmp_path, Server()).url(URL, "0" * 64)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_package_comes_from_the_registry_that_has_it(tmp_path: Path) -> None:
    link = f'<a href="https://files.example/demo-1.0.tar.gz#sha256={SHA}">demo-1.0.tar.gz</a>'
    server = Server(pages={f"{INDEX}/demo/": link})
    settings = IndexSettings((f"{INDEX}/empty", INDEX), (), None)
    path = downloads(tmp_path, server, settings=settings).package("Demo", "1.0", SHA)
    assert path.name == "demo-1.0.tar.gz"
    assert server.requests == [f"{INDEX}/empty/demo/", f"{INDEX}/demo/", "https://files.example/demo-1.0.tar.gz"]


def test_without_hashes_in_the_registry_the_content_decides(tmp_path: Path) -> None:
    index = tmp_path / "simple" / "demo"
    index.mkdir(parents=True)
    (index / "demo-1.0-py3-none-any.whl").write_bytes(b"the wheel")
    (index / "demo-1.0.tar.gz").write_bytes(BODY)
    (index / "index.html").write_text('<a href="demo-1.0-py3-none-any.whl">w</a><a href="demo-1.0.tar.gz">s</a>')
    settings = IndexSettings(((tmp_path / "simple").as_uri(),), (), None)
    with pytest.raises(BadInput):
        downloads(tmp_path / "cache", Server(), settings=settings).package("demo", "1.0", "0" * 64)
    # A folder's address without the last slash would resolve links beside it.
    path = downloads(tmp_path / "cache", Server(), settings=settings).package("demo", "1.0", SHA)
    assert path.read_bytes() == BODY

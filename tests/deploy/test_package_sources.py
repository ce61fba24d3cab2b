"""pip's settings in uv's words, CPU builds of torch, uv from an index."""

import hashlib
import io
import platform
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deploy.local import package_sources
from deploy.local.package_sources import Sources

NOTHING = Sources((), "", (), "")


@pytest.fixture(autouse=True)
def pip_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The only configuration file that pip has here."""
    path = tmp_path / "pip.conf"
    monkeypatch.setattr(package_sources, "pip_config_files", lambda: [path])
    for name in ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CERT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("UV_FIND_LINKS", "UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_STRATEGY", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    return path


@pytest.fixture
def index(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A package index: its address and the folder behind it."""
    folder = tmp_path / "index"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()


def test_nothing_is_set_where_pip_has_no_settings():
    assert package_sources.sources() == NOTHING
    assert package_sources.uv_environment(NOTHING, extra=False) == {}


def test_the_configuration_file_is_read_and_the_environment_wins(pip_config: Path, monkeypatch: pytest.MonkeyPatch):
    pip_config.write_text("[global]\nfind-links = /a /b\nindex-url = https://mirror.example/simple\n")
    monkeypatch.setenv("PIP_FIND_LINKS", "/c")
    found = package_sources.sources()
    assert (found.find_links, found.main_index) == (("/c",), "https://mirror.example/simple")


def test_an_extra_index_whose_folder_is_gone_is_left_out(pip_config: Path, tmp_path: Path):
    there = f"file://{tmp_path}"
    pip_config.write_text(f"[global]\nextra-index-url = {there} file:///nowhere/simple https://more.example/simple\n")
    assert package_sources.sources().extra_indexes == (there, "https://more.example/simple")


def test_uv_gets_what_pip_has_and_extra_indexes_on_demand():
    found = Sources(("/a", "/b"), "https://mirror.example", ("https://more.example",), "/etc/ca.pem")
    told = package_sources.uv_environment(found, extra=False)
    assert told == {
        "UV_FIND_LINKS": "/a,/b",
        "UV_DEFAULT_INDEX": "https://mirror.example",
        "SSL_CERT_FILE": "/etc/ca.pem",
    }
    more = package_sources.uv_environment(found, extra=True)
    assert (more["UV_INDEX"], more["UV_INDEX_STRATEGY"]) == ("https://more.example", "unsafe-best-match")


def test_what_is_set_for_uv_already_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("UV_FIND_LINKS", "/mine")
    assert package_sources.uv_environment(NOTHING._replace(find_links=("/a",)), extra=False) == {}


def test_a_linked_cpu_build_of_torch_is_seen_in_a_folder_and_on_a_page(tmp_path: Path, index: tuple[str, Path]):
    address, folder = index
    wheel = "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl"
    assert not package_sources.cpu_torch_linked(NOTHING._replace(find_links=(str(tmp_path), address)), "2.13.0")
    (folder / wheel).touch()
    for place in (str(folder), address):
        found = NOTHING._replace(find_links=(place,))
        assert package_sources.cpu_torch_linked(found, "2.13.0")
        assert not package_sources.cpu_torch_linked(found, "2.14.0")


@pytest.mark.parametrize(
    ("gpu", "linked", "reachable", "needed"),
    [
        (False, False, True, True),
        (False, False, False, False),
        (False, True, True, False),
        (True, False, True, False),
    ],
)
def test_torchs_own_index_is_asked_only_without_gpu_and_linked_build(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, linked: bool, reachable: bool, needed: bool
):
    monkeypatch.setattr(package_sources, "has_gpu", lambda: gpu)
    monkeypatch.setattr(package_sources, "cpu_torch_linked", lambda found, version: linked)
    monkeypatch.setattr(package_sources, "torch_index_answers", lambda found: reachable)
    assert package_sources.needs_torch_index(NOTHING, "2.13.0") is needed


def put_uv(folder: Path, program: bytes, sha256: str | None = None) -> None:
    """Let the index have a wheel of uv 1.2.3 that holds `program`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("uv-1.2.3.data/scripts/uv", program)
    name = f"uv-1.2.3-py3-none-manylinux_2_17_{platform.machine()}.manylinux2014_{platform.machine()}.whl"
    (folder / "files").mkdir()
    (folder / "files" / name).write_bytes(buffer.getvalue())
    digest = sha256 or hashlib.sha256(buffer.getvalue()).hexdigest()
    (folder / "uv").mkdir()
    other = '<a href="../files/uv-1.2.2-py3-none-win32.whl#sha256=00">old</a>'
    (folder / "uv" / "index.html").write_text(f'{other}\n<a href="../files/{name}#sha256={digest}">{name}</a>')


def test_uv_is_taken_out_of_its_wheel_without_pip(index: tuple[str, Path], tmp_path: Path):
    address, folder = index
    put_uv(folder, b"#!/bin/sh\necho uv 1.2.3\n")
    uv = package_sources.fetch_uv(tmp_path / "bootstrap", NOTHING._replace(main_index=address), "1.2.3")
    assert uv.read_bytes().startswith(b"#!/bin/sh")
    assert uv.stat().st_mode & 0o111


def test_a_wheel_with_another_hash_than_the_index_says_is_refused(index: tuple[str, Path], tmp_path: Path):
    address, folder = index
    put_uv(folder, b"something else", sha256="0" * 64)
    with pytest.raises(OSError, match="another sha256"):
        package_sources.fetch_uv(tmp_path / "bootstrap", NOTHING._replace(main_index=address), "1.2.3")
    assert not (tmp_path / "bootstrap").exists()


def test_an_index_without_a_wheel_for_this_machine_is_named(index: tuple[str, Path], tmp_path: Path):
    address, folder = index
    put_uv(folder, b"")
    with pytest.raises(FileNotFoundError, match=r"no wheel of uv 9\.9\.9"):
        package_sources.fetch_uv(tmp_path / "bootstrap", NOTHING._replace(main_index=address), "9.9.9")

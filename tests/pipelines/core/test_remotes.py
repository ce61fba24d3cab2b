"""DVC remotes: what is pushed comes back byte for byte, from a folder and from an S3-compatible server."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pipelines.core import workspace
from pipelines.core.errors import BadInput

ARTIFACT = bytes(range(256)) * 300
PIPELINE = """
stages:
  make:
    cmd: python make.py
    deps: [make.py]
    outs: [artifacts/make]
"""
MAKE = """
from pathlib import Path
folder = Path("artifacts/make")
folder.mkdir(parents=True)
(folder / "one.bin").write_bytes(bytes(range(256)) * 300)
(folder / "two.txt").write_text("two")
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one artifact, made and in the cache."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "COLLOQUY_DVC_REMOTE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    project = tmp_path / "project"
    (project / ".dvc").mkdir(parents=True)
    (project / ".dvc" / "config").write_text("[core]\n    analytics = false\n    check_update = false\n")
    (project / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n")
    (project / "dvc.yaml").write_text(PIPELINE)
    (project / "make.py").write_text(MAKE)
    subprocess.run(["git", "init", "-q", project], check=True)
    workspace._share_cache(project, tmp_path / "home")
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q"], cwd=project, check=True)
    assert (project / "artifacts/make/one.bin").read_bytes() == ARTIFACT
    return project


def round_trip(project: Path, home: Path) -> None:
    workspace.transfer("push", project, home)
    shutil.rmtree(home / "dvc-cache")
    shutil.rmtree(home / "dvc-state", ignore_errors=True)
    shutil.rmtree(project / "artifacts")
    workspace.transfer("pull", project, home)
    assert (project / "artifacts/make/one.bin").read_bytes() == ARTIFACT
    assert (project / "artifacts/make/two.txt").read_text() == "two"


def test_a_folder_is_the_remote_when_nothing_is_set(project: Path, tmp_path: Path) -> None:
    round_trip(project, tmp_path / "home")
    assert any((tmp_path / "home" / "dvc-remote").rglob("*"))


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3-compatible server with one bucket, reached by the provider's own variables."""
    server_module = pytest.importorskip("moto.server", reason="needs moto")
    pytest.importorskip("dvc_s3", reason="needs dvc-s3")
    server = server_module.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("NO_PROXY", host)
    assert httpx.put(f"{address}/bucket", trust_env=False).is_success
    yield address
    server.stop()


def test_an_s3_bucket_is_the_remote_by_one_setting(
    project: Path, tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLLOQUY_DVC_REMOTE", "s3://bucket/colloquy")
    round_trip(project, tmp_path / "home")
    listing = httpx.get(f"{s3}/bucket?list-type=2", trust_env=False).text
    assert listing.count("<Key>colloquy/files/md5/") == 3  # two files and their folder
    assert not (tmp_path / "home" / "dvc-remote").exists()


def test_a_bucket_that_is_not_there_is_named(
    project: Path, tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLLOQUY_DVC_REMOTE", "s3://no-such-bucket/colloquy")
    with pytest.raises(BadInput, match="(?s)dvc push .*failed.*s3://no-such-bucket/colloquy; look at its credentials"):
        workspace.transfer("push", project, tmp_path / "home")


def test_without_a_lock_file_nothing_is_moved(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"has no dvc.lock.*RUN_ID"):
        workspace.transfer("pull", tmp_path, tmp_path)


@pytest.mark.parametrize("url", ["s3://b/p", "gs://b", "azure://c/p", "/srv/store"])
def test_each_store_is_one_setting(url: str, tmp_path: Path) -> None:
    assert workspace.remote_url(tmp_path, {"COLLOQUY_DVC_REMOTE": url}) == url


@pytest.mark.parametrize("url", ["bucket", "ftp://b/p", "s3://", "s3://b\nurl = /x", "relative/folder"])
def test_another_store_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="COLLOQUY_DVC_REMOTE="):
        workspace.remote_url(tmp_path, {"COLLOQUY_DVC_REMOTE": url})

"""Fetches files once: retries with back-off, checks SHA-256, and keeps them under their hash for later runs."""

import os
import shlex
import shutil
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Self, TypeVar
from urllib.parse import unquote, urlsplit

import httpx

from pipelines.core.digests import file_sha256
from pipelines.core.errors import BadInput
from pipelines.data.package_index import (
    IndexSettings,
    Page,
    find_files,
    pip_config_files,
    read_settings,
    without_password,
)

T = TypeVar("T")

PAUSES_S = (1.0, 3.0, 9.0)  # between the tries of one request
TIMEOUT_S = 60.0  # without a byte
PARTIAL = ".partial-"  # what is not whole yet
STALE_S = 24 * 3600.0  # after which a partial download is taken for one of a killed process
_SIMPLE_API = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"


def require_sha256(path: Path, expected: str, origin: str) -> None:
    """Check a file against its pin.

    Raises:
        BadInput: it has another hash; both are named.
    """
    found = file_sha256(path)
    if found != expected:
        raise BadInput(
            f"{origin} has sha256 {found}, the parameters pin {expected}; "
            "if the new content is what you want, pin its hash, otherwise look where the file comes from"
        )


def _name_of(url: str) -> str:
    return PurePosixPath(unquote(urlsplit(url).path)).name or "file"


def remove_stale(folder: Path) -> None:
    """Remove what downloads that were killed have left in `folder`."""
    for path in folder.glob(f"{PARTIAL}*"):
        if time.time() - path.stat().st_mtime > STALE_S:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


class Downloads:
    """The download cache: `folder`/<sha256>/<file name>. Safe for several processes at once."""

    def __init__(
        self,
        folder: Path,
        settings: IndexSettings,
        client: httpx.Client,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.folder = folder
        self._settings = settings
        self._client = client
        self._sleep = sleep

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """The cache under $COLLOQUY_HOME and the registries that pip and uv are set to."""
        settings = read_settings(environ, pip_config_files(environ))
        client = httpx.Client(
            verify=ssl.create_default_context(cafile=settings.certificate),
            timeout=TIMEOUT_S,
            follow_redirects=True,
        )
        folder = Path(environ.get("COLLOQUY_HOME", ".colloquy")) / "downloads"
        remove_stale(folder)
        return cls(folder, settings, client)

    def package(self, name: str, version: str, sha256: str) -> Path:
        """The file of package `name==version` that has hash `sha256`.

        Raises:
            BadInput: no registry has it, can be reached, or sends these bytes.
        """
        if cached := self._cached(sha256):
            return cached
        origin = f"pypi:{name}=={version}"
        candidates = find_files(name, version, sha256, self._settings, self._read_page)
        for link in candidates[:-1]:  # a registry without hashes: only the content tells
            try:
                return self._download(link.url, sha256, origin)
            except BadInput:
                continue
        return self._download(candidates[-1].url, sha256, origin)

    def url(self, url: str, sha256: str) -> Path:
        """The file behind `url`.

        Raises:
            BadInput: it can't be reached or has another hash.
        """
        # By name too: the format is read off the name, and other sources may have the same bytes.
        return self._cached(sha256, _name_of(url)) or self._download(url, sha256, without_password(url))

    def npm(self, name: str, version: str, sha256: str) -> Path:
        """The tarball of an npm package; none of its scripts runs.

        Raises:
            BadInput: npm is not on this machine, has no such package, or sends other bytes.
        """
        words = ["npm", "pack", "--silent", "--ignore-scripts", f"{name}@{version}"]
        return self._cached(sha256) or self._by_tool(words, sha256, f"npm:{name}@{version}")

    def debian(self, name: str, version: str, sha256: str) -> Path:
        """The .deb file of a Debian package; nothing is installed.

        Raises:
            BadInput: apt-get is not on this machine, has no such package, or sends other bytes.
        """
        words = ["apt-get", "download", f"{name}={version}"]
        return self._cached(sha256) or self._by_tool(words, sha256, f"debian:{name}={version}")

    def _by_tool(self, words: list[str], sha256: str, origin: str) -> Path:
        if shutil.which(words[0]) is None:
            raise BadInput(
                f"{origin} needs {words[0]}, which is not on PATH; install it, or take the source from another origin"
            )
        place = self.folder / sha256
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=self.folder) as name:
            done = subprocess.run(words, cwd=name, capture_output=True, text=True)
            files = [path for path in Path(name).iterdir() if path.is_file()]
            if done.returncode or len(files) != 1:
                said = (done.stderr or done.stdout).strip()[-500:] or f"it left {len(files)} files"
                raise BadInput(
                    f"{origin}: `{shlex.join(words)}` failed: {said}; check the name and version, the network, "
                    "and the tool's registry settings"
                )
            require_sha256(files[0], sha256, origin)
            return files[0].replace(place / files[0].name)

    def _cached(self, sha256: str, name: str | None = None) -> Path | None:
        for path in sorted((self.folder / sha256).glob("*")):
            if name is not None and path.name != name:
                continue
            if file_sha256(path) == sha256:
                return path
            path.unlink()  # a disk fault; fetched again
        return None

    def _download(self, url: str, sha256: str, origin: str) -> Path:
        place = self.folder / sha256
        place.mkdir(parents=True, exist_ok=True)
        target = place / _name_of(url)
        # Beside the folder, whose every file counts as whole; the name is unique, so two runs never mix their bytes.
        handle, name = tempfile.mkstemp(prefix=PARTIAL, dir=self.folder)
        os.close(handle)
        partial = Path(name)
        try:
            if url.startswith("file:"):
                shutil.copyfile(unquote(urlsplit(url).path), partial)
            else:
                self._tried(url, lambda: self._stream(url, partial))
            require_sha256(partial, sha256, f"{origin} ({without_password(url)})")
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return target

    def _stream(self, url: str, path: Path) -> None:
        with self._client.stream("GET", url) as response, path.open("wb") as out:
            response.raise_for_status()
            for block in response.iter_bytes(1 << 20):
                out.write(block)

    def _read_page(self, url: str) -> Page | None:
        if url.startswith("file:"):
            path = Path(unquote(urlsplit(url).path))
            path = path / "index.html" if path.is_dir() else path
            return Page(url, "text/html", path.read_bytes()) if path.is_file() else None

        def read() -> Page | None:
            response = self._client.get(url, headers={"Accept": _SIMPLE_API})
            if response.status_code in (403, 404, 410):  # some registries say 403 for a project they don't have
                return None
            response.raise_for_status()
            return Page(str(response.url), response.headers.get("content-type", ""), response.content)

        return self._tried(url, read)

    def _tried(self, url: str, action: Callable[[], T]) -> T:
        for pause in (*PAUSES_S, None):
            try:
                return action()
            except httpx.HTTPStatusError as error:
                status = error.response.status_code
                if pause is None or (status < 500 and status not in (408, 429)):
                    raise BadInput(
                        f"{without_password(url)} answers {status}; correct the origin in the parameters, "
                        "or try again later"
                    ) from error
            except httpx.TransportError as error:
                if pause is None:
                    raise BadInput(
                        f"{without_password(url)} can't be reached ({error}); check the network, proxy and "
                        "registry settings (PIP_INDEX_URL, PIP_CERT, HTTPS_PROXY)"
                    ) from error
            self._sleep(pause)
        raise AssertionError("the last try returns or raises")

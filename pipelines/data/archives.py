"""Reads chosen files out of an archive without unpacking it; a file that is no archive is its own only member."""

import bz2
import gzip
import lzma
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from pipelines.core.errors import BadInput

_BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError)
_NAMES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip", ".whl")


class Member(NamedTuple):
    """A regular file in an archive: its path there and its size in bytes."""

    path: str
    size: int


class Archive(Protocol):
    """What can list its files and open each of them."""

    def members(self) -> list[Member]: ...
    def open(self, path: str) -> IO[bytes]: ...


class _Tar:
    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._files = {info.name: info for info in tar.getmembers() if info.isfile()}

    def members(self) -> list[Member]:
        return [Member(info.name, info.size) for info in self._files.values()]

    def open(self, path: str) -> IO[bytes]:
        file = self._tar.extractfile(self._files[path])
        assert file is not None, f"{path} is a regular file"
        return file


class _Zip:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._zip = archive

    def members(self) -> list[Member]:
        return [Member(info.filename, info.file_size) for info in self._zip.infolist() if not info.is_dir()]

    def open(self, path: str) -> IO[bytes]:
        return self._zip.open(path)


class _Single:
    def __init__(self, path: Path) -> None:
        self._path = path

    def members(self) -> list[Member]:
        return [Member(self._path.name, self._path.stat().st_size)]

    def open(self, path: str) -> IO[bytes]:
        return self._path.open("rb")


@contextmanager
def _decompressed(path: Path) -> Iterator[IO[bytes]]:
    """The tar file inside `path`, seekable: going back in a compressed stream means reading it again from the start."""
    if path.suffix == ".tar":
        with path.open("rb") as plain:
            yield plain
        return
    formats: dict[str, type[gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile]] = {".bz2": bz2.BZ2File, ".xz": lzma.LZMAFile}
    with tempfile.TemporaryFile() as unpacked:
        with formats.get(path.suffix, gzip.GzipFile)(path, "rb") as compressed:
            shutil.copyfileobj(compressed, unpacked, 1 << 20)
        unpacked.seek(0)
        yield unpacked


@contextmanager
def open_archive(path: Path, origin: str) -> Iterator[Archive]:
    """Open the tar or zip file at `path`, or any other file as its own only member.

    Raises:
        BadInput: the archive is damaged, here or while it is read inside the block.
    """
    try:
        if not path.name.endswith(_NAMES):
            yield _Single(path)
        elif path.name.endswith((".zip", ".whl")):
            with zipfile.ZipFile(path) as archive:
                yield _Zip(archive)
        else:
            with _decompressed(path) as plain, tarfile.open(fileobj=plain, mode="r:") as tar:
                yield _Tar(tar)
    except _BROKEN as error:
        raise BadInput(
            f"{origin}: the archive {path} is damaged ({type(error).__name__}: {error}); delete it there and fetch it "
            "again, or pin a whole one"
        ) from error


def matching(archive: Archive, include: list[str]) -> list[Member]:
    """The members whose path fits a pattern (`*` crosses `/`), all when there is none, sorted by path."""
    members = archive.members()
    return sorted(m for m in members if not include or any(fnmatchcase(m.path, pattern) for pattern in include))

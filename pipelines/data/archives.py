"""Reads chosen files out of an archive without unpacking it; a file that is no archive is its own only member.

What unpacks to far more than its size is refused while it is read: an archive may be an attack.
"""

import bz2
import gzip
import io
import lzma
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, cast

from pipelines.core.errors import BadInput

MAX_RATIO = 200  # unpacked to packed; text stays far below, deflate can reach 1,032
FREE_BYTES = 64 << 20  # may come out of anything, however small
MAX_MEMBERS = 500_000  # their names are held in memory
_NAMES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip", ".whl", ".deb")


class Bomb(Exception):
    """Something packed comes out larger than any text would."""


class Damaged(Exception):
    """A compressed stream is cut short or broken; unlike EOFError, nobody takes it for an end."""


# What reading a damaged or hostile archive or gzip file raises.
UNREADABLE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    EOFError,
    Bomb,
    Damaged,
)


class Member(NamedTuple):
    """A regular file in an archive: its path there and its size in bytes."""

    path: str
    size: int


class Archive(Protocol):
    """What can list its files and open each of them."""

    def members(self) -> list[Member]: ...
    def open(self, path: str) -> IO[bytes]: ...


class _Measured(io.RawIOBase):
    """Reads from `file` until more than `limit` bytes have come."""

    def __init__(self, file: io.BufferedIOBase, limit: int) -> None:
        self._file = file
        self._limit = limit
        self._taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            content = self._file.read1(len(buffer))  # not read(): at damage it would lose what came before
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise Damaged(str(error)) from error
        buffer[: len(content)] = content
        self._taken += len(content)
        if self._taken > self._limit:
            raise Bomb(f"unpacks to more than {self._limit} bytes, {MAX_RATIO} times its size")
        return len(content)


def _measured(file: io.BufferedIOBase, packed_size: int) -> IO[bytes]:
    return io.BufferedReader(_Measured(file, max(FREE_BYTES, MAX_RATIO * packed_size)), 1 << 18)


def gunzipped(raw: IO[bytes], member: Member) -> IO[bytes]:
    """What is inside a gzip file of several parts or one; damage raises as it is met."""
    return _measured(gzip.GzipFile(fileobj=raw), member.size)


class _Tar:
    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._files: dict[str, tarfile.TarInfo] = {}
        for count, info in enumerate(tar, start=1):
            if info.isfile():
                # A name that is no UTF-8 comes with half surrogates, which can't be written.
                self._files[info.name.encode("utf-8", "backslashreplace").decode()] = info
            if count > MAX_MEMBERS:
                raise Bomb(f"has more than {MAX_MEMBERS} members")

    def members(self) -> list[Member]:
        return [Member(name, info.size) for name, info in self._files.items()]

    def open(self, path: str) -> IO[bytes]:
        file = self._tar.extractfile(self._files[path])
        assert file is not None, f"{path} is a regular file"
        return file


class _Zip:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._zip = archive
        if len(archive.infolist()) > MAX_MEMBERS:
            raise Bomb(f"has more than {MAX_MEMBERS} members")

    def members(self) -> list[Member]:
        return [Member(info.filename, info.file_size) for info in self._zip.infolist() if not info.is_dir()]

    def open(self, path: str) -> IO[bytes]:
        info = self._zip.getinfo(path)
        if info.file_size > max(FREE_BYTES, MAX_RATIO * info.compress_size):
            raise Bomb(f"{path} unpacks to {info.file_size} bytes from {info.compress_size}")
        try:
            return self._zip.open(info)
        except (RuntimeError, OSError) as error:  # a password, an unknown method, a table that leads astray
            raise zipfile.BadZipFile(str(error)) from error


def _opened_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, NotImplementedError) as error:  # where its own tables lead astray
        raise zipfile.BadZipFile(str(error)) from error


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
    with tempfile.TemporaryFile() as unpacked:
        with _opened(path) as compressed:
            shutil.copyfileobj(_measured(compressed, path.stat().st_size), unpacked, 1 << 20)
        unpacked.seek(0)
        yield unpacked


@contextmanager
def _opened(path: Path) -> Iterator[io.BufferedIOBase]:
    if path.suffix == ".deb":
        with _tar_of_debian(path) as tar:
            yield tar
        return
    formats: dict[str, type[gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile]] = {".bz2": bz2.BZ2File, ".xz": lzma.LZMAFile}
    with formats.get(path.suffix, gzip.GzipFile)(path, "rb") as compressed:
        yield compressed


@contextmanager
def _tar_of_debian(path: Path) -> Iterator[io.BufferedIOBase]:
    """The files of a Debian package as `dpkg-deb` unpacks them; none of the package's scripts runs.

    Raises:
        BadInput: dpkg-deb is not on this machine.
        Damaged: the package is.
    """
    tool = shutil.which("dpkg-deb")
    if tool is None:
        raise BadInput(f"reading {path} needs dpkg-deb, which is not on PATH; install dpkg or take another origin")
    with subprocess.Popen(
        [tool, "--fsys-tarfile", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as unpacking:
        assert unpacking.stdout is not None and unpacking.stderr is not None, "both are pipes"
        try:
            yield cast(io.BufferedIOBase, unpacking.stdout)
        except BaseException:
            unpacking.kill()
            raise
        complaint = unpacking.stderr.read().decode(errors="replace").strip()
    if unpacking.returncode:
        raise Damaged(complaint)


@contextmanager
def open_archive(path: Path, origin: str) -> Iterator[Archive]:
    """Open the tar or zip file at `path`, or any other file as its own only member.

    Raises:
        BadInput: the archive is damaged or a bomb, here or while it is read inside the block.
    """
    try:
        if not path.name.endswith(_NAMES):
            yield _Single(path)
        elif path.name.endswith((".zip", ".whl")):
            with _opened_zip(path) as archive:
                yield _Zip(archive)
        else:
            with _decompressed(path) as plain, tarfile.open(fileobj=plain, mode="r:") as tar:
                yield _Tar(tar)
    except Bomb as error:
        raise BadInput(f"{origin}: the archive {path} {error}; look at where it comes from, and pin another") from error
    except UNREADABLE as error:
        raise BadInput(
            f"{origin}: the archive {path} is damaged ({type(error).__name__}: {error}); delete it there and fetch it "
            "again, or pin a whole one"
        ) from error


def matching(archive: Archive, include: list[str]) -> list[Member]:
    """The members whose path fits a pattern (`*` crosses `/`), all when there is none, sorted by path."""
    members = archive.members()
    return sorted(m for m in members if not include or any(fnmatchcase(m.path, pattern) for pattern in include))

"""Archives: chosen members in a fixed order, and damage that is said."""

import io
import tarfile
import zipfile
from pathlib import Path
from typing import Literal

import pytest

from pipelines.core.errors import BadInput
from pipelines.data.archives import matching, open_archive

FILES = {"p-1/docs/b.rst": b"bee", "p-1/docs/a.rst": b"ay", "p-1/setup.py": b"raise SystemExit"}


def make(path: Path) -> Path:
    if path.suffix in (".zip", ".whl"):
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in FILES.items():
                archive.writestr(name, content)
        return path
    kinds: dict[str, Literal["w:gz", "w:bz2", "w:xz", "w:"]] = {
        ".gz": "w:gz",
        ".bz2": "w:bz2",
        ".xz": "w:xz",
        ".tar": "w:",
    }
    with tarfile.open(path, kinds[path.suffix]) as tar:
        for name, content in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("p-1/docs/link.rst")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return path


@pytest.mark.parametrize("name", ["p.tar.gz", "p.tar.bz2", "p.tar.xz", "p.tar", "p.zip", "p.whl"])
def test_matching_files_come_sorted_and_links_never(tmp_path: Path, name: str) -> None:
    with open_archive(make(tmp_path / name), "source p") as archive:
        members = matching(archive, ["*/docs/*.rst"])
        assert [member.path for member in members] == ["p-1/docs/a.rst", "p-1/docs/b.rst"]
        assert [archive.open(member.path).read() for member in reversed(members)] == [b"bee", b"ay"]


def test_a_plain_file_is_its_own_only_member(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"{}\n")
    with open_archive(path, "source p") as archive:
        [member] = matching(archive, [])
        assert (member.path, member.size) == ("rows.jsonl", 3)
        assert archive.open(member.path).read() == b"{}\n"


@pytest.mark.parametrize("name", ["p.tar.gz", "p.zip"])
def test_half_an_archive_is_refused_with_its_source(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BadInput, match=r"source p: the archive .* is damaged"), open_archive(path, "source p"):
        pass

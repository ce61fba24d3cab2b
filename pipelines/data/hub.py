"""Data sets and models of a Hugging Face hub at a commit; the client is imported only when a source names one."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx

from pipelines.core.errors import BadInput
from pipelines.core.sections.data import Source
from pipelines.data.archives import Archive, Member
from pipelines.data.downloads import PARTIAL
from pipelines.data.origins import HubOrigin, require_commit

TOKENIZER_FILES = ["*.json", "*.model", "*.txt", "*.tiktoken", "*.jinja", "LICENSE*"]
MODEL_FILES = [*TOKENIZER_FILES, "*.safetensors"]  # no pickles, no code


def _unreachable(origin: str, error: Exception) -> BadInput:
    return BadInput(
        f"{origin}: {type(error).__name__}: {error}; check the name and revision, the network, HF_ENDPOINT and HF_TOKEN"
    )


def _folder_of(pattern: str) -> str | None:
    """The folder that holds every path that fits `pattern`; None for the root."""
    return re.split(r"[*?\[]", pattern, maxsplit=1)[0].rpartition("/")[0] or None


class _Files:
    """The files of a data set: each is fetched as it is opened, and gone from disk as it is closed."""

    def __init__(self, source: Source, origin: HubOrigin, folder: Path) -> None:
        self._where = f"source {source.name} ({source.origin})"
        self._folders = {_folder_of(pattern) for pattern in source.include}
        self._origin = origin
        self._folder = folder

    def members(self) -> list[Member]:
        from huggingface_hub import HfApi, RepoFile

        found: dict[str, int] = {}
        try:
            for folder in self._folders:
                for item in HfApi().list_repo_tree(
                    self._origin.repo,
                    path_in_repo=folder,
                    recursive=True,
                    revision=self._origin.revision,
                    repo_type="dataset",
                ):
                    if isinstance(item, RepoFile):
                        found[item.path] = item.size
        except (OSError, ValueError, httpx.HTTPError) as error:
            raise _unreachable(self._where, error) from error
        return [Member(path, size) for path, size in found.items()]

    def open(self, path: str) -> IO[bytes]:
        from huggingface_hub import hf_hub_download

        try:
            fetched = hf_hub_download(
                self._origin.repo,
                path,
                revision=self._origin.revision,
                repo_type="dataset",
                local_dir=self._folder,
            )
        except (OSError, ValueError, httpx.HTTPError) as error:
            raise _unreachable(f"{self._where}, {path}", error) from error
        file = Path(fetched).open("rb")  # noqa: SIM115  # whoever opened it closes it
        Path(fetched).unlink()  # the disk holds one file of a large data set at a time
        return file


@contextmanager
def open_data_set(source: Source, origin: HubOrigin, folder: Path) -> Iterator[Archive]:
    """The data files of `origin` that fit `include`, as an archive; `folder` is for the one that is being read.

    Raises:
        BadInput: inside the block, when the data set can't be reached.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=folder) as temporary:
        yield _Files(source, origin, Path(temporary))


def copy_files(source: Path, patterns: list[str], folder: Path) -> None:
    """Copy the files in `source` that fit `patterns` into `folder`."""
    for file in {file for pattern in patterns for file in source.glob(pattern)}:
        shutil.copyfile(file, folder / file.name)


def fetch_model(repo: str, revision: str, patterns: list[str], cache: Path, folder: Path) -> None:
    """Put the files of a model that fit `patterns` into `folder`; `cache` keeps them for later runs.

    Raises:
        BadInput: there is no such model, or it can't be reached.
    """
    from huggingface_hub import snapshot_download

    require_commit(repo, revision)
    try:
        snapshot = snapshot_download(
            repo,
            revision=revision,
            cache_dir=cache,
            allow_patterns=patterns,
            ignore_patterns=["*/*"],  # exports to other formats, with a config of their own
        )
    except (OSError, ValueError) as error:
        raise _unreachable(f"hub:{repo}@{revision}", error) from error
    copy_files(Path(snapshot), patterns, folder)  # the snapshot is links into the cache

"""Data sets and models of a Hugging Face hub at a commit; imported only when a source names one."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from pipelines.core.config import Source
from pipelines.core.errors import BadInput
from pipelines.core.records import Document, content_id
from pipelines.data.origins import HubOrigin, require_commit
from pipelines.data.reading import Limits, Quarantined

MODEL_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "LICENSE*"]  # no pickles, no code


def _unreachable(origin: str, error: Exception) -> BadInput:
    return BadInput(
        f"{origin}: {type(error).__name__}: {error}; check the name and revision, the network, HF_ENDPOINT and HF_TOKEN"
    )


def read_documents(source: Source, origin: HubOrigin, limits: Limits) -> Iterator[Document | Quarantined]:
    """Stream the `train` split of a data set; `include` names data files, none means the data set's own choice.

    Raises:
        BadInput: the data set can't be read.
    """
    from datasets import load_dataset

    where = f"hub:{origin.repo}@{origin.revision}"
    column = source.columns.get("text", "text")
    try:
        stream = load_dataset(
            origin.repo,
            revision=origin.revision,
            data_files=source.include or None,
            split="train",
            streaming=True,
        )
        yield from _take(source, stream, where, column, limits)
    except (OSError, ValueError) as error:
        raise _unreachable(where, error) from error


def _take(source: Source, rows: object, where: str, column: str, limits: Limits) -> Iterator[Document | Quarantined]:
    size = 0
    for number, row in enumerate(rows, start=1):  # type: ignore[var-annotated,arg-type]
        text = row.get(column)
        if number > limits.documents:
            return
        if not isinstance(text, str) or not text.strip():
            yield Quarantined(source.name, where, number, f"{column!r} must be a text that is not empty")
            continue
        size += len(text.encode())
        if size > limits.size:
            return
        metadata = {key: value for key, value in row.items() if key != column and isinstance(value, str | int | float)}
        metadata |= {"path": where, "line": number, "format": "text"}
        yield Document(content_id([source.name, where, number, text]), text, source.name, source.license, metadata)


def fetch_model(repo: str, revision: str, cache: Path, folder: Path) -> None:
    """Put the weights, tokenizer and configuration of a model into `folder`; `cache` keeps them for later runs.

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
            allow_patterns=MODEL_FILES,
            ignore_patterns=["*/*"],  # exports to other formats, with a config of their own
        )
    except (OSError, ValueError) as error:
        raise _unreachable(f"hub:{repo}@{revision}", error) from error
    shutil.copytree(snapshot, folder, dirs_exist_ok=True)  # the snapshot is links into the cache

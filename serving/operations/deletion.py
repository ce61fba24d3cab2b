"""Says which model versions saw a document, a user or a labeler, so that a deletion reaches what was trained on them.

    python -m serving.operations.deletion --document ID | --user ID | --labeler PSEUDONYM

A document is named by the id that corpus, demonstrations, prompts or the product's conversations give it, a user by the
id in the product, a labeler by the name in agreement reports. Environment: MLFLOW_TRACKING_URI and COLLOQUY_HOME, whose
DVC cache holds what each version and each round before it read. A user is found through the exported snapshots, in
which `serving.operations.feedback_export` notes whose each row is.
"""

import argparse
import functools
import gzip
import json
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from pipelines.core import artifacts
from pipelines.core.errors import BadInput
from pipelines.core.feedback import OWNERS, owner_of, snapshots
from pipelines.core.jsonl import Row, read_json, read_rows
from pipelines.core.lineage import Origin, Reader, tracking_address

# What people or documents come in by; everything else is made from these.
READ = (
    artifacts.PREPARE_CORPUS,
    artifacts.PULL_DEMONSTRATIONS,
    artifacts.PREPARE_SFT,
    artifacts.SAMPLE_COMPLETIONS,
    artifacts.PULL_ANNOTATIONS,
    artifacts.PREPARE_PREFERENCES,
)
NOT_SEEN = ("dropped.jsonl.gz", "drop_samples.jsonl")  # of prepare_corpus: no model learns from these


class Seen(NamedTuple):
    """A version that saw what is asked for, and in which outputs of which runs."""

    version: int
    places: list[str]


def identifiers(row: Row) -> set[str]:
    """Everything by which a row of any of `READ` may be asked for."""
    prompt, metadata = row.get("prompt") or {}, row.get("metadata") or {}
    found = [row.get(key) for key in ("id", "labeler", "author", "checker")]
    found += [prompt.get("id"), metadata.get("conversation")]
    return {each for each in found if each}


class Cache:
    """DVC's cache in `folder`, searched once for each content."""

    def __init__(self, folder: Path, wanted: Collection[str]) -> None:
        self._folder = folder
        self._wanted = set(wanted)
        self.holds = functools.cache(self._holds)

    def _path(self, md5: str) -> Path:
        path = self._folder / "files" / "md5" / md5[:2] / md5[2:]
        if not path.exists():
            raise BadInput(f"{path} is missing, so that nobody can say who is in it; fetch it by `make pull RUN_ID=…`")
        return path

    def _files(self, md5: str) -> Iterator[tuple[str, Path]]:
        for entry in read_json(self._path(md5)):
            if entry["relpath"] not in NOT_SEEN and entry["relpath"].endswith((".jsonl", ".jsonl.gz")):
                yield entry["relpath"], self._path(entry["md5"])

    def _holds(self, md5: str) -> bool:
        """Whether the folder of this hash has a row of what is asked for."""
        return any(
            self._wanted & identifiers(json.loads(line))
            for name, path in self._files(md5)
            for line in _lines(name, path)
        )


def _lines(name: str, path: Path) -> Iterator[bytes]:
    """The lines of a file in the cache, where it has no ending that tells gzip."""
    with path.open("rb") as file:
        text: IO[bytes] | gzip.GzipFile = gzip.GzipFile(fileobj=file) if name.endswith(".gz") else file
        yield from (line for line in text if line.strip())


def places(outs: Mapping[str, str], cache: Cache) -> list[str]:
    """The outputs among `outs` that hold what is asked for."""
    return [str(path) for path in READ if str(path) in outs and cache.holds(outs[str(path)])]


def seen_by(origins: Iterable[Origin], cache: Cache) -> Iterator[Seen]:
    """The versions that saw what `cache` is asked for, directly or in a round that they go on from.

    Raises:
        BadInput: the cache does not have what a version read.
    """
    for origin in origins:
        rounds: list[dict[str, Any]] = [{"run": origin.tags["run_id"], "outs": origin.lineage["outs"]}]
        rounds += origin.lineage["earlier_rounds"]
        found = [f"{place} of run {each['run']}" for each in rounds for place in places(each["outs"], cache)]
        if found:
            yield Seen(origin.number, found)


def rows_of_user(home: Path, user_id: str) -> set[str]:
    """The ids that exported rows of a user have.

    Raises:
        BadInput: nothing of the user was ever exported, so that no model can have seen it.
    """
    owner = owner_of(user_id)
    rows = (row for folder in snapshots(home) for row in read_rows(folder / OWNERS))
    found = {row["id"] for row in rows if row["owner"] == owner}
    if not found:
        raise BadInput(f"no snapshot in {home} has a row of user {user_id!r}: no model saw anything of them")
    return found


def parse(words: list[str]) -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(prog="python -m serving.operations.deletion", description=__doc__)
    whom = parser.add_mutually_exclusive_group(required=True)
    for name in ("document", "user", "labeler"):
        whom.add_argument(f"--{name}")
    return parser.parse_args(words)


def find(asked: argparse.Namespace, home: Path, tracking_url: str) -> list[Seen]:
    """Every version that saw what is asked for."""
    wanted = rows_of_user(home, asked.user) if asked.user else {asked.document or asked.labeler}
    cache = Cache(home / "dvc-cache", wanted)
    reader = Reader(tracking_url)
    try:
        return list(seen_by(map(reader.origin, reader.versions()), cache))
    finally:
        reader.close()


def main() -> None:
    try:
        seen = find(parse(sys.argv[1:]), Path(os.environ["COLLOQUY_HOME"]), tracking_address())
    except BadInput as error:
        sys.exit(str(error))
    for version, where in seen:
        print(f"version {version}: {'; '.join(where)}")
    if not seen:
        print("no version saw it")


if __name__ == "__main__":
    main()

"""Which versions saw somebody: found through the caches of their own run and of the rounds before."""

import hashlib
import json
from pathlib import Path

import pytest

from pipelines.core import artifacts, feedback
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import write_json, write_rows
from pipelines.core.lineage import Origin
from serving.operations.deletion import Cache, rows_of_user, seen_by


def keep(cache: Path, content: bytes, ending: str = "") -> str:
    """Put `content` where DVC would; returns its hash."""
    md5 = hashlib.md5(content).hexdigest() + ending
    path = cache / "files" / "md5" / md5[:2] / md5[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return md5


def folder(cache: Path, tmp_path: Path, name: str, *rows: dict) -> str:
    """A folder with one file of `rows` in the cache."""
    write_rows(tmp_path / name, rows)
    entry = {"md5": keep(cache, (tmp_path / name).read_bytes()), "relpath": name}
    return keep(cache, json.dumps([entry]).encode(), ".dir")


def origin(number: int, outs: dict[Path, str], *earlier: tuple[str, dict[Path, str]]) -> Origin:
    def named(found: dict[Path, str]) -> dict[str, str]:
        return {str(path): md5 for path, md5 in found.items()}

    rounds = [{"run": run, "outs": named(found)} for run, found in earlier]
    lineage = {"outs": named(outs), "earlier_rounds": rounds}
    return Origin(number, {"run_id": f"run-{number}"}, lineage, "", "", {})


@pytest.fixture
def versions(tmp_path: Path) -> list[Origin]:
    cache = tmp_path / "cache"
    corpus = folder(cache, tmp_path, "train.jsonl.gz", {"id": "doc-1", "metadata": {"conversation": "conv-1"}})
    dropped = folder(cache, tmp_path, "dropped.jsonl.gz", {"id": "doc-2"})
    labels = folder(cache, tmp_path, "annotations.jsonl", {"task_id": "t", "labeler": "labeler-1"})
    pairs = folder(cache, tmp_path, "pairs.jsonl", {"id": "p", "prompt": {"id": "asked-1"}})
    first = {artifacts.PREPARE_CORPUS: corpus, artifacts.PULL_ANNOTATIONS: labels}
    second = {artifacts.PREPARE_CORPUS: dropped, artifacts.PREPARE_PREFERENCES: pairs}
    return [origin(1, first), origin(2, second, ("run-1", {artifacts.PULL_ANNOTATIONS: labels})), origin(3, {})]


@pytest.mark.parametrize(
    ("wanted", "seen"),
    [
        ("doc-1", {1: ["artifacts/prepare_corpus of run run-1"]}),
        ("conv-1", {1: ["artifacts/prepare_corpus of run run-1"]}),
        ("doc-2", {}),  # dropped: no model learned from it
        (
            "labeler-1",
            {1: ["artifacts/pull_annotations of run run-1"], 2: ["artifacts/pull_annotations of run run-1"]},
        ),
        ("asked-1", {2: ["artifacts/prepare_preferences of run run-2"]}),
    ],
)
def test_every_version_that_saw_it_is_listed_with_the_place(
    tmp_path: Path, versions: list[Origin], wanted: str, seen: dict[int, list[str]]
):
    assert dict(seen_by(versions, Cache(tmp_path / "cache", {wanted}))) == seen


def test_what_the_cache_lacks_is_an_error_and_not_a_no(tmp_path: Path):
    version = origin(1, {artifacts.PULL_ANNOTATIONS: "0" * 32 + ".dir"})
    with pytest.raises(BadInput, match="nobody can say who is in it"):
        list(seen_by([version], Cache(tmp_path, {"labeler-1"})))


def test_a_user_is_found_by_the_rows_that_were_exported(tmp_path: Path):
    snapshot = feedback.folder(tmp_path, "one")
    write_rows(snapshot / feedback.OWNERS, [{"id": "asked-1", "owner": feedback.owner_of("user-1")}])
    write_json(snapshot / feedback.MANIFEST, {})
    assert rows_of_user(tmp_path, "user-1") == {"asked-1"}
    with pytest.raises(BadInput, match="no model saw anything of them"):
        rows_of_user(tmp_path, "user-2")

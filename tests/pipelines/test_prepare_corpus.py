"""prepare_corpus: every document read is kept or dropped with its reason, and the same input gives the same bytes."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from pipelines.core import artifacts
from pipelines.core.errors import BadInput, ExitCode
from pipelines.core.jsonl import Row, read_json, read_rows, write_json, write_rows
from pipelines.core.records import Document
from pipelines.model.ngram_moderation import FeatureShape, NGramModerator
from pipelines.prepare_corpus import check_paper_sources, check_quarantine
from tests.slurm import install_slurm
from tests.workspaces import ROOT, make_workspace, run_stage, stage_environment

ITEM = "Which planet of the Solar System takes the least time to go once around the Sun?"
OWN_ITEM = "Return the letters of the longest river name in the list, sorted from the last one to the first."


def prose() -> Iterator[str]:
    """Different texts of a hundred words or more, out of the project's own demonstrations."""
    text = ""
    for row in read_rows(ROOT / "pipelines" / "datasets" / "demonstrations.jsonl"):
        text = f"{text}\n\n{row['messages'][-1]['content']}".strip()
        if len(text.split()) >= 100:
            yield text
            text = ""


def write_inputs(workspace: Path, texts: dict[str, str], quarantined: int = 0, files: int = 1) -> None:
    rows = [
        Document(id=name, text=text, source="mine", license="MIT", metadata={"path": name, "format": "text"}).to_row()
        for name, text in texts.items()
    ]
    for number in range(files):
        write_rows(workspace / artifacts.INGEST_CORPUS / f"mine-{number}.jsonl.gz", rows[number::files])
    source = {"name": "mine", "use": "corpus", "origin": "file:x", "sha256": "0", "license": "MIT"}
    counts = {"rows": len(rows), "bytes": sum(map(len, texts.values())), "quarantined": quarantined}
    write_json(workspace / artifacts.INGEST_MANIFEST, {"sources": [source | counts], "base_model": {"kind": "scratch"}})
    shape = FeatureShape(hash_bits=10, shortest=3, longest=3, word_ngrams=1, word_weight=1.0)
    harmless = NGramModerator(["harassment"], shape, np.zeros((1, 1 << 10), np.float32), np.full(1, -4, np.float32))
    harmless.save(workspace / artifacts.TRAIN_MODERATION)
    harmless.save(workspace / artifacts.TRAIN_MODERATION / "screen")  # as lies within a model that is an encoder


def rows_of(workspace: Path, path: Path) -> list[Row]:
    return list(read_rows(workspace / path))


def test_everything_read_is_kept_or_dropped_with_its_reason(tmp_path: Path) -> None:
    own_items = tmp_path / "own.jsonl"
    own_items.write_text('{"task_id": "own/0", "prompt": "' + OWN_ITEM + '"}\n')
    workspace = make_workspace(tmp_path / "run", [f"evaluate.humaneval_data={own_items}"])
    different = prose()
    texts = {f"good{number}": next(different) for number in range(60)}
    texts |= {
        "short": "Too short.",
        "german": "Der Hafen war still an diesem Morgen, und die Boote lagen an der Mauer. " * 10,
        "twice": texts["good3"].replace(". ", ".\n\n"),
        "nearly": texts["good4"].replace(" is ", " was ", 1),
        "exam": f"{next(different)} {ITEM} {next(different)}",
        "own exam": f"{next(different)} {OWN_ITEM} {next(different)}",
        "letter": f"{next(different)} Write to jane.doe@mail.example for more of it.",
    }
    write_inputs(workspace, texts)
    seen = []
    for _ in range(2):
        done = run_stage(workspace, "pipelines.prepare_corpus")
        assert done.returncode == 0, done.stderr
        seen.append(outputs(workspace))
    assert seen[0] == seen[1]

    dropped = {row["document"]["id"]: row["step"] for row in rows_of(workspace, artifacts.CORPUS_DROPPED)}
    assert dropped == {
        "short": "language",
        "german": "language",
        "twice": "duplicates",
        "nearly": "duplicates",
        "exam": "decontamination",
        "own exam": "decontamination",
    }
    kept = {
        row["id"]: row["text"]
        for path in (artifacts.CORPUS_TRAIN, artifacts.CORPUS_HELD_OUT)
        for row in rows_of(workspace, path)
    }
    assert kept.keys() | dropped.keys() == texts.keys()
    assert not kept.keys() & dropped.keys()
    assert "Write to [EMAIL] for more" in kept["letter"]

    funnel = read_json(workspace / artifacts.CORPUS_FUNNEL)
    steps = funnel["steps"]
    assert all(
        after["documents_in"] == before["documents_out"] for before, after in zip(steps, steps[1:], strict=False)
    )
    assert steps[0]["documents_in"] == len(texts)
    assert sum(size["documents"] for size in funnel["kept"].values()) == len(kept)
    card = (workspace / artifacts.CORPUS_CARD).read_text()
    assert "| mine | file:x | MIT | 67 |" in card
    assert "| language | language de | 1 |" in card
    code = hashlib.sha256((workspace / "pipelines" / "data" / "language.py").read_bytes()).hexdigest()[:12]
    assert f"| language | pipelines/data/language.py | {code} |" in card
    assert f"| datatrove | {version('datatrove')} |" in card


def outputs(workspace: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (workspace / artifacts.PREPARE_CORPUS).iterdir()}


def several_files(folder: Path, workers: int, overrides: Sequence[str] = ()) -> Path:
    workspace = make_workspace(folder, [f"resources.workers.count={workers}", *overrides])
    texts = {f"text{number}": text for number, text in enumerate(prose())}
    write_inputs(workspace, texts | {f"again {name}": text for name, text in texts.items()}, files=3)
    return workspace


def test_the_bytes_do_not_depend_on_the_workers_nor_on_a_kill(tmp_path: Path) -> None:
    alone, together, killed = (several_files(tmp_path / str(number), number) for number in (1, 2, 3))
    for workspace in (alone, together):
        done = run_stage(workspace, "pipelines.prepare_corpus")
        assert done.returncode == 0, done.stderr
    assert outputs(alone) == outputs(together)

    variables = os.environ | {"PYTHONPATH": str(killed)}
    victim = subprocess.Popen(
        [sys.executable, "-m", "pipelines.prepare_corpus"], cwd=killed, env=variables, start_new_session=True
    )
    while not list(killed.glob(".run/work/prepare_corpus/*/clean/completions/*")):
        assert victim.poll() is None
        time.sleep(0.005)
    os.killpg(victim.pid, signal.SIGKILL)
    victim.wait()
    done = run_stage(killed, "pipelines.prepare_corpus")
    assert done.returncode == 0, done.stderr
    assert outputs(killed) == outputs(alone)
    assert not (killed / ".run" / "work" / "prepare_corpus").exists()


def test_slurm_writes_the_bytes_of_local_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_slurm(tmp_path / "slurm", monkeypatch)
    here, there = (
        several_files(tmp_path / name, 1, [f"resources.workers.executor={name}", "prepare_corpus.pii_types=[email]"])
        for name in ("local", "slurm")
    )
    for workspace in (here, there):
        done = run_stage(workspace, "pipelines.prepare_corpus")
        assert done.returncode == 0, done.stderr
    assert outputs(here) == outputs(there)
    assert len(list((tmp_path / "slurm" / "queue").glob("*.states"))) == 2  # cleaning and finishing


def test_dvc_shows_what_changed_between_two_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    workspace = make_workspace(
        tmp_path / "run", ["prepare_corpus.pii_types=[email]", "prepare_corpus.held_out_share=0.3"]
    )
    different = prose()
    texts = {f"text{number}": next(different) for number in range(30)}
    write_inputs(workspace, texts)
    shutil.copy(ROOT / "dvc.yaml", workspace)

    def call(*words: str) -> str:
        environment = stage_environment(workspace)
        return subprocess.run(words, cwd=workspace, env=environment, check=True, capture_output=True, text=True).stdout

    def dvc(*words: str) -> str:
        return call(sys.executable, "-m", "dvc", *words)

    call("git", "init", "-q")
    dvc("init", "-q")
    for number in (1, 2):
        dvc("repro", "-q", "--single-item", "prepare_corpus")
        call("git", "add", "dvc.yaml", "dvc.lock", "params.yaml")
        call("git", "-c", "user.name=t", "-c", "user.email=t@t.example", "commit", "-q", "-m", f"number {number}")
        call("git", "tag", f"model-v{number}")
        write_inputs(workspace, texts | {f"more{number}": next(different) for number in range(20)})

    changes = json.loads(dvc("diff", "--json", "model-v1", "model-v2"))
    changed = {str(artifacts.CORPUS_TRAIN), str(artifacts.CORPUS_CARD), str(artifacts.CORPUS_FUNNEL)}
    assert changed <= {entry["path"] for entry in changes["modified"]}
    numbers = json.loads(dvc("metrics", "diff", "--json", "model-v1", "model-v2"))
    assert numbers[str(artifacts.metrics_of("prepare_corpus"))]["documents_read"] == {"old": 30, "new": 50, "diff": 20}


def test_nothing_left_is_bad_input_that_says_where_to_look(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "run")
    write_inputs(workspace, {"short": "Too short."})
    done = run_stage(workspace, "pipelines.prepare_corpus")
    assert done.returncode == ExitCode.BAD_INPUT
    assert "left no document" in done.stderr and "dropped.jsonl.gz" in done.stderr


def test_too_much_that_could_not_be_read_ends_the_run() -> None:
    manifest = {"sources": [{"name": "mine", "use": "corpus", "rows": 97, "quarantined": 3}]}
    check_quarantine(manifest, 0.05)
    with pytest.raises(BadInput, match=r"source mine: 3 of 100 pieces could not be read \(3.0%\)"):
        check_quarantine(manifest, 0.02)


def test_a_paper_source_that_is_not_there_ends_the_run() -> None:
    manifest = {"sources": [{"name": "arxiv", "use": "corpus"}, {"name": "labelled", "use": "moderation"}]}
    check_paper_sources(manifest, ["arxiv"])
    with pytest.raises(
        BadInput, match=r"paper_sources names \['labelled'\]; the corpus sources of ingest are \['arxiv'\]"
    ):
        check_paper_sources(manifest, ["arxiv", "labelled"])

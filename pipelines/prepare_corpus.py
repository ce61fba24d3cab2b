"""Stage `prepare_corpus`: raw documents become clean text; every drop is kept with its step and reason.

In: `artifacts/ingest`, the classifier of `artifacts/train_moderation`, the evaluation sets (must not be in it):
`evals/datasets` and what the `…_data` of `evaluate` name.
Out: `train.jsonl.gz` and `held_out.jsonl.gz` (Document rows), `dropped.jsonl.gz` ({step, reason, document}),
`drop_samples.jsonl` (20 of each reason), `funnel.json` (documents and bytes per step and source), `funnel.svg`, and the
data set card `card.md`.

Three passes over the files of `ingest`, each file a task for a worker: (1) clean and fingerprint each document; (2) in
one process, find duplicates over all fingerprints; (3) drop them, take out evaluation text and harm, redact. What a
task wrote under `.run/work` stays until the stage ends, so that a killed stage goes on where it was.
"""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipelines.core import artifacts
from pipelines.core.config import Params
from pipelines.core.digests import file_sha256
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import Row, open_rows, read_json, read_rows, write_json, write_rows
from pipelines.core.records import Document, content_id
from pipelines.core.sections.data import PrepareCorpus
from pipelines.core.stage import open_stage
from pipelines.data.corpus_report import card, funnel_svg
from pipelines.data.decontamination import decontamination_filter, evaluation_files, evaluation_texts
from pipelines.data.dedup import Fingerprints, Repeats, exact_repeats, near_repeats, repeats_filter
from pipelines.data.extraction import extract_html
from pipelines.data.harm import harm_filter
from pipelines.data.language import language_filter
from pipelines.data.machine_text import machine_text_filter
from pipelines.data.markup import clean_markup
from pipelines.data.normalization import normalize
from pipelines.data.notation import notation_normalizer
from pipelines.data.pii_analyzer import redactor
from pipelines.data.quality import quality_steps
from pipelines.data.spam import spam_filter
from pipelines.data.splits import is_held_out
from pipelines.data.steps import Dropped, Funnel, Step, filtering, merged, run_steps, transforming
from pipelines.data.workers import run_tasks
from pipelines.model.moderation import load_moderator

EVALUATION_DATA = Path("evals/datasets")
WORK = artifacts.RUN / "work" / "prepare_corpus"
SPLITS = ("train", "held_out")
SAMPLES = 20  # of the drops for each reason
SAMPLE_CHARACTERS = 1000


class Shard(NamedTuple):
    """The files of one task, named by its number."""

    work: Path
    number: int

    def path(self, name: str) -> Path:
        return self.work / f"{self.number:05d}.{name}"


def cleaning_steps(params: PrepareCorpus) -> list[Step]:
    """The steps that look at a document by itself and are cheap."""
    steps = [
        transforming("extract_html", extract_html),
        transforming("clean_markup", clean_markup),
        transforming("normalize", normalize),
        transforming("scientific_notation", notation_normalizer(params.paper_sources)),
        filtering("language", language_filter(params.language, params.min_language_probability)),
        *quality_steps(params.quality, params.min_words, params.max_words),
    ]
    if params.spam:
        steps.append(filtering("spam", spam_filter(params.spam)))
    if params.machine_text:
        steps.append(filtering("machine_text", machine_text_filter(params.machine_text)))
    return steps


def finishing_steps(params: PrepareCorpus, evaluation: list[Path], repeats: Repeats) -> list[Step]:
    """The steps for what is left of one file, whose `repeats` pass 2 found; `evaluation` is what must not be in it."""
    ngram = params.decontamination_ngram
    return [
        filtering("duplicates", repeats_filter(repeats)),
        filtering("decontamination", decontamination_filter(evaluation_texts(evaluation), ngram)),
        filtering("harm", harm_filter(load_moderator(artifacts.TRAIN_MODERATION).score, params.max_moderation_score)),
        transforming("redact_pii", redactor(params.pii_types)),
    ]


def read_documents(path: Path) -> Iterator[Document]:
    """The documents of one file, in order."""
    return map(Document.from_row, read_rows(path))


def largest_first(paths: list[Path]) -> list[int]:
    """The numbers of `paths` in the order of tasks, so that no worker begins a large file when the others end."""
    return sorted(range(len(paths)), key=lambda number: paths[number].stat().st_size, reverse=True)


def clean(files: list[Path], work: Path, params: PrepareCorpus, seed: int, order: list[int], task: int) -> None:
    """Pass 1 over the file of a task: what stays, its fingerprints, and what was dropped."""
    shard, steps = Shard(work, order[task]), cleaning_steps(params)
    funnel, fingerprints = Funnel(steps), Fingerprints(seed)
    with open_rows(shard.path("clean.jsonl.gz")) as write, open_rows(shard.path("dropped-1.jsonl.gz")) as write_dropped:
        for result in run_steps(read_documents(files[shard.number]), steps, funnel):
            if isinstance(result, Dropped):
                write_dropped(result.to_row())
            else:
                write(result.to_row())
                fingerprints.add(result.text)
    fingerprints.save(shard.path("digests.npy"), shard.path("signatures.npy"))
    write_json(shard.path("funnel-1.json"), funnel.rows())


def find_repeats(shards: list[Shard], similarity: float) -> None:
    """Pass 2, over all files at once: marks for each which of its documents repeat an earlier one."""
    digests = [np.load(shard.path("digests.npy")) for shard in shards]
    signatures = [np.load(shard.path("signatures.npy"), mmap_mode="r") for shard in shards]
    borders = np.cumsum([len(part) for part in digests])[:-1]
    exact = np.split(exact_repeats(np.concatenate(digests)), borders)
    near = np.split(near_repeats(signatures, similarity), borders)
    for shard, *repeats in zip(shards, exact, near, strict=True):
        np.save(shard.path("repeats.npy"), np.stack(repeats))


def finish(work: Path, params: PrepareCorpus, evaluation: list[Path], seed: int, order: list[int], task: int) -> None:
    """Pass 3 over the cleaned file of a task: what stays, by split, and what was dropped."""
    shard = Shard(work, order[task])
    steps = finishing_steps(params, evaluation, Repeats(*np.load(shard.path("repeats.npy"))))
    funnel = Funnel(steps)
    kept = {split: {"documents": 0, "words": 0, "bytes": 0} for split in SPLITS}
    with ExitStack() as files:
        write = {split: files.enter_context(open_rows(shard.path(f"{split}.jsonl.gz"))) for split in SPLITS}
        write_dropped = files.enter_context(open_rows(shard.path("dropped-3.jsonl.gz")))
        for result in run_steps(read_documents(shard.path("clean.jsonl.gz")), steps, funnel):
            if isinstance(result, Dropped):
                write_dropped(result.to_row())
                continue
            split = SPLITS[is_held_out(result.id, params.held_out_share, seed)]
            write[split](result.to_row())
            kept[split]["documents"] += 1
            kept[split]["words"] += len(result.text.split())
            kept[split]["bytes"] += len(result.text.encode())
    write_json(shard.path("funnel-3.json"), funnel.rows())
    write_json(shard.path("kept.json"), kept)


def concatenate(parts: Iterable[Path], path: Path) -> None:
    """Write gzip files one after the other as one, which is a gzip file again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_path = path.with_name(f".{path.name}")
    with partial_path.open("wb") as out:
        for part in parts:
            with part.open("rb") as file:
                shutil.copyfileobj(file, out, 1 << 20)
    partial_path.replace(path)


def drop_samples(dropped: Path) -> list[Row]:
    """SAMPLES drops of each step and reason, chosen by the hash of their id, with texts cut at SAMPLE_CHARACTERS."""
    chosen: dict[tuple[str, str], list[tuple[str, Row]]] = {}
    for row in read_rows(dropped):
        document = row["document"] | {"text": row["document"]["text"][:SAMPLE_CHARACTERS]}
        entry = (content_id([document["id"], document["text"]]), row | {"document": document})
        kept = [*chosen.get((row["step"], row["reason"]), ()), entry]
        chosen[row["step"], row["reason"]] = sorted(kept, key=lambda pair: pair[0])[:SAMPLES]
    return [row for reason in sorted(chosen) for _, row in chosen[reason]]


def check_quarantine(manifest: Row, max_share: float) -> None:
    """Fail when too much of a source could not be read: the corpus would not be what its name says.

    Raises:
        BadInput: a source's quarantined share is above `max_share`.
    """
    for source in manifest["sources"]:
        share = source["quarantined"] / max(source["quarantined"] + source["rows"], 1)
        if source["use"] == "corpus" and share > max_share:
            raise BadInput(
                f"source {source['name']}: {source['quarantined']} of {source['quarantined'] + source['rows']} pieces "
                f"could not be read ({share:.1%}), prepare_corpus.max_quarantined_share allows {max_share:.1%}; "
                f"the reasons are in {artifacts.INGEST_QUARANTINED}"
            )


def check_paper_sources(manifest: Row, papers: list[str]) -> None:
    """Fail when `papers` names a source that is not there: its notation would stay as it is without a word.

    Raises:
        BadInput: no corpus source of that name.
    """
    names = [source["name"] for source in manifest["sources"] if source["use"] == "corpus"]
    if unknown := sorted(set(papers) - set(names)):
        raise BadInput(f"prepare_corpus.paper_sources names {unknown}; the corpus sources of ingest are {names}")


def work_folder(files: list[Path], evaluation: list[Path], params: Params) -> Path:
    """The folder for what passes leave to each other: one for each input, and no other stays."""
    model = sorted(path for path in artifacts.TRAIN_MODERATION.rglob("*") if path.is_file())
    read = [*files, *evaluation, *model]
    inputs = [[path.name, file_sha256(path)] for path in read]
    work = WORK / content_id([inputs, params.prepare_corpus.model_dump(), params.seed])
    for other in set(WORK.glob("*")) - {work}:
        shutil.rmtree(other)
    work.mkdir(parents=True, exist_ok=True)
    return work


def main() -> None:
    with open_stage("prepare_corpus") as stage:
        params, seed, workers = stage.params.prepare_corpus, stage.params.seed, stage.params.resources.workers
        manifest = read_json(artifacts.INGEST_MANIFEST)
        check_quarantine(manifest, params.max_quarantined_share)
        check_paper_sources(manifest, params.paper_sources)
        files = sorted(artifacts.INGEST_CORPUS.glob("*.jsonl.gz"))
        evaluate = stage.params.evaluate
        evaluation = evaluation_files(EVALUATION_DATA, *evaluate.data)
        work = work_folder(files, evaluation, stage.params)
        shards = [Shard(work, number) for number in range(len(files))]

        order = largest_first(files)
        run_tasks(partial(clean, files, work, params, seed, order), len(files), work / "clean", workers)
        find_repeats(shards, params.near_duplicate_similarity)
        order = largest_first([shard.path("clean.jsonl.gz") for shard in shards])
        run_tasks(partial(finish, work, params, evaluation, seed, order), len(files), work / "finish", workers)

        for split, path in zip(SPLITS, (artifacts.CORPUS_TRAIN, artifacts.CORPUS_HELD_OUT), strict=True):
            concatenate((shard.path(f"{split}.jsonl.gz") for shard in shards), path)
        dropped = (shard.path(f"dropped-{number}.jsonl.gz") for shard in shards for number in (1, 3))
        concatenate(dropped, artifacts.CORPUS_DROPPED)
        rows = merged(read_json(shard.path(f"funnel-{number}.json")) for number in (1, 3) for shard in shards)
        sizes = [read_json(shard.path("kept.json")) for shard in shards]
        kept = {
            split: {name: sum(size[split][name] for size in sizes) for name in ("documents", "words", "bytes")}
            for split in SPLITS
        }
        for split, size in kept.items():
            if not size["documents"]:
                raise BadInput(
                    f"prepare_corpus left no document for the {split} split; look at the drops in "
                    f"{artifacts.CORPUS_DROPPED}, raise ingest's limits or change prepare_corpus.held_out_share"
                )
        write_rows(artifacts.CORPUS_DROP_SAMPLES, drop_samples(artifacts.CORPUS_DROPPED))
        write_json(artifacts.CORPUS_FUNNEL, {"steps": rows, "kept": kept})
        artifacts.CORPUS_FUNNEL_PLOT.write_text(funnel_svg(rows), encoding="utf-8")
        artifacts.CORPUS_CARD.write_text(card(manifest, rows, kept, params.model_dump()), encoding="utf-8")
        logged = (artifacts.CORPUS_CARD, artifacts.CORPUS_FUNNEL, artifacts.CORPUS_FUNNEL_PLOT)
        for path in (*logged, artifacts.CORPUS_DROP_SAMPLES):
            stage.tracker.log_artifact(path)
        read = sum(source["rows"] for source in manifest["sources"] if source["use"] == "corpus")
        stage.write_metrics(
            {f"{split}_{name}": float(value) for split, size in kept.items() for name, value in size.items()}
            | {
                "documents_read": float(read),
                "documents_dropped": float(read - sum(size["documents"] for size in kept.values())),
            }
        )
        shutil.rmtree(WORK)


if __name__ == "__main__":
    # By its own name, not as __main__: other machines find the tasks by the name of their module.
    from pipelines.prepare_corpus import main as run

    run()

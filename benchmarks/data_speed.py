"""Speed of `prepare_corpus`: the same steps as datatrove's stock blocks, two workers against one, and the demo corpus.

Both sides of the first figure read the same gzip files, apply Gopher's quality and repetition rules, find near
duplicates by MinHash, redact e-mail and IP addresses, and write gzip files, in one process. Datatrove's blocks are used
as they come: its English words are spaCy's.

    make bench NAME=data_speed
    SIZE_MB=40 make bench NAME=data_speed
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.corpora import ROOT, write_workspace
from pipelines.core import artifacts, config
from pipelines.core.jsonl import open_rows, read_rows
from pipelines.core.records import Document
from pipelines.core.sections.data import PrepareCorpus
from pipelines.data.dedup import Fingerprints, near_repeats
from pipelines.data.pii_analyzer import redactor
from pipelines.data.quality import gopher_quality_thresholds, gopher_repetition_thresholds, quality_steps
from pipelines.data.steps import Funnel, run_steps, transforming


def ours(files: list[Path], work: Path, params: PrepareCorpus) -> int:
    """Documents that are left by our steps."""
    steps = list(quality_steps(params.quality, params.min_words, params.max_words))
    fingerprints, left = Fingerprints(1), 0
    with open_rows(work / "clean.jsonl.gz") as write:
        rows = (Document.from_row(row) for path in files for row in read_rows(path))
        for document in run_steps(rows, steps, Funnel(steps)):
            if isinstance(document, Document):
                write(document.to_row())
                fingerprints.add(document.text)
    fingerprints.save(work / "digests.npy", work / "signatures.npy")
    repeats = near_repeats([np.load(work / "signatures.npy", mmap_mode="r")], params.near_duplicate_similarity)
    redact = [transforming("redact", redactor(["email", "ip"]))]
    with open_rows(work / "out.jsonl.gz") as write:
        rows = (
            Document.from_row(row)
            for row, repeated in zip(read_rows(work / "clean.jsonl.gz"), repeats, strict=True)
            if not repeated
        )
        for document in run_steps(rows, redact, Funnel(redact)):
            write(document.to_row())
            left += 1
    return left


def stock(folder: Path, work: Path, params: PrepareCorpus) -> int:
    """Documents that are left by datatrove's blocks at the same thresholds."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
    from datatrove.pipeline.formatters import PIIFormatter
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter
    from datatrove.utils.hashing import HashConfig

    minhash = MinhashConfig(hash_config=HashConfig(hash_fc="sha1"))  # its default fails with the present xxhash
    passes = [
        [
            JsonlReader(str(folder)),
            GopherQualityFilter(
                **gopher_quality_thresholds(params.quality.gopher_quality, params.min_words, params.max_words)
            ),
            GopherRepetitionFilter(**gopher_repetition_thresholds(params.quality.gopher_repetition)),
            JsonlWriter(str(work / "clean")),
        ],
        [JsonlReader(str(work / "clean")), MinhashDedupSignature(str(work / "signatures"), config=minhash)],
        [MinhashDedupBuckets(str(work / "signatures"), str(work / "buckets"), config=minhash)],
        [MinhashDedupCluster(str(work / "buckets"), str(work / "remove"), config=minhash)],
        [
            JsonlReader(str(work / "clean")),
            MinhashDedupFilter(str(work / "remove")),
            PIIFormatter(),
            JsonlWriter(str(work / "out")),
        ],
    ]
    tasks = [1, 1, minhash.num_buckets, 1, 1]
    for number, (pipeline, count) in enumerate(zip(passes, tasks, strict=True)):
        LocalPipelineExecutor(pipeline, tasks=count, workers=1, logging_dir=str(work / f"log{number}")).run()
    return sum(1 for path in (work / "out").glob("*.jsonl.gz") for _ in read_rows(path))


def stage_seconds(workspace: Path, stage: str) -> float:
    """Seconds that a stage took as a process of its own."""
    variables = os.environ | {"PYTHONPATH": str(workspace)}
    variables.pop("MLFLOW_TRACKING_URI", None)
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", f"pipelines.{stage}"], cwd=workspace, env=variables, check=True)
    return time.monotonic() - started


def main() -> None:
    size = int(os.environ.get("SIZE_MB", "40")) * 1_000_000
    params = config.parse(config.resolve(ROOT, "smol", []), "the parameters").prepare_corpus
    with tempfile.TemporaryDirectory(prefix="colloquy-speed-") as place:
        workspace = write_workspace(Path(place, "one"), size, ["resources.workers.count=1"])
        folder = workspace / artifacts.INGEST_CORPUS
        files = sorted(folder.glob("*.jsonl.gz"))
        seconds: dict[str, float] = {}
        for name in ("ours", "stock"):
            work = Path(place, name)
            work.mkdir()
            started = time.monotonic()
            left = ours(files, work, params) if name == "ours" else stock(folder, work, params)
            seconds[name] = time.monotonic() - started
            print(f"{name:<24}{seconds[name]:>8.1f} s{size / 1e6 / seconds[name]:>8.2f} MB/s   {left} documents left")
        seconds["one worker"] = stage_seconds(workspace, "prepare_corpus")
        both = write_workspace(Path(place, "two"), size, ["resources.workers.count=2"])
        seconds["two workers"] = stage_seconds(both, "prepare_corpus")
        demo = write_workspace(Path(place, "demo"), 0, [])
        for stage in ("ingest", "train_moderation", "prepare_corpus"):
            seconds[f"demo {stage}"] = stage_seconds(demo, stage)
    for name in list(seconds)[2:]:
        print(f"{name:<24}{seconds[name]:>8.1f} s")
    figures = {
        "ratio_to_datatrove": round(seconds["stock"] / seconds["ours"], 2),
        "scaling_2_workers": round(seconds["one worker"] / seconds["two workers"], 2),
        "mb_per_s_core": round(size / 1e6 / seconds["one worker"], 2),
        "demo_s": round(seconds["demo prepare_corpus"], 1),
    }
    print(json.dumps({"name": "data_speed", "figures": figures}))


if __name__ == "__main__":
    main()

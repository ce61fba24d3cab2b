"""MMLU here against lm-evaluation-harness: the same answer to every question, and questions per second.

    make bench NAME=mmlu_vs_lm_eval
    SUBJECTS=folder/of/csv QUESTIONS=300 DTYPE=float32 make bench NAME=mmlu_vs_lm_eval

SmolLM2-135M, one model object in one process with the same threads, five examples before each question where there are
as many. The harness reads the same rows through its own MMLU template and runs at the fastest of several batch sizes,
which is looked for first. Loading is left out on both sides; tokenizing, prompts and scores are not. In bfloat16 a
logit has about three significant digits and letters tie by rounding, so answers are compared in float32.
"""

import json
import logging
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.base_models import ROOT, write_policy
from evals.tasks.mmlu import LETTERS, Mmlu, balanced
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import Row, write_rows
from pipelines.data.evaluation_sets import evaluation_rows
from pipelines.model.engine import TransformersEngine

SHARED = Path(os.environ.get("COLLOQUY_SHARED_DATA", ROOT.parent / "shared" / "data")) / "mmlu"
SUBJECTS = os.environ.get("SUBJECTS")
DEFAULT_SUBJECTS = ("computer_security", "medical_genetics", "world_religions")
# Every question of a folder that SUBJECTS names; of the shared data some.
QUESTIONS = int(os.environ.get("QUESTIONS", "1000000" if SUBJECTS else "300"))
DTYPE = os.environ.get("DTYPE", "float32")
SHOTS = 5  # or as many dev questions as every subject has
OUR_BATCH = 32
THEIR_BATCHES = (1, 4, 16)
TRIED = 16  # questions on which the harness's batch size is chosen


def read_questions() -> list[Row]:
    """Dev rows of the chosen subjects and the test rows that are asked.

    Raises:
        BadInput: no questions.
    """
    rows = list(evaluation_rows(Path(SUBJECTS) if SUBJECTS else SHARED))
    if not SUBJECTS:
        rows = [row for row in rows if row["subject"] in DEFAULT_SUBJECTS]
    test = balanced([row for row in rows if row["split"] == "test"], QUESTIONS)
    if not test:
        raise BadInput(f"{SUBJECTS or SHARED} has no test questions; name a folder with test and dev CSV files")
    subjects = {row["subject"] for row in test}
    return [row for row in rows if row["split"] == "dev" and row["subject"] in subjects] + test


def shots_of(rows: list[Row]) -> int:
    """How many examples every subject has, at most SHOTS."""
    dev = Counter(row["subject"] for row in rows if row["split"] == "dev")
    return min(SHOTS, *(dev[row["subject"]] for row in rows))


def write_harness_tasks(rows: list[Row], shots: int, folder: Path) -> list[str]:
    """A task of the harness for each subject: its MMLU template over our rows; returns the names."""
    import lm_eval

    template = Path(lm_eval.__file__).parent / "tasks" / "mmlu" / "default" / "_default_template_yaml"
    names = []
    for subject in sorted({row["subject"] for row in rows}):
        files = {}
        for split in ("dev", "test") if shots else ("test",):
            files[split] = str(folder / f"{subject}_{split}.jsonl")
            write_rows(Path(files[split]), (r for r in rows if (r["subject"], r["split"]) == (subject, split)))
        names.append(f"local_mmlu_{subject}")
        headline = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
        task = {
            "include": str(template),
            "task": names[-1],
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": files},
            "description": headline,
            "fewshot_split": "dev" if shots else None,
            "num_fewshot": shots,
        }
        (folder / f"{names[-1]}.yaml").write_text(json.dumps(task))  # JSON is YAML
    return names


class Harness:
    """lm-evaluation-harness around a model that is loaded already."""

    def __init__(self, engine: TransformersEngine, folder: Path, names: list[str]) -> None:
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        self._lm = HFLM(pretrained=engine.model, tokenizer=engine.tokenizer, batch_size=1)
        self._manager = TaskManager(include_path=str(folder), include_defaults=False)
        self._names = names

    def answers(self, batch_size: int, limit: int | None = None) -> tuple[dict[str, str], dict[str, str], float]:
        """Answer and prompt of each question, and the seconds that this took without loading."""
        from lm_eval.evaluator import evaluate

        tasks = self._manager.load(self._names[:1] if limit else self._names)
        self._lm.batch_size_per_gpu = batch_size
        started = time.perf_counter()
        samples = evaluate(self._lm, tasks, limit=limit, bootstrap_iters=0)["samples"]
        seconds = time.perf_counter() - started
        answers, prompts = {}, {}
        for sample in (sample for found in samples.values() for sample in found):
            logprobs = [response[0] for response in sample["filtered_resps"]]
            answers[sample["doc"]["id"]] = LETTERS[logprobs.index(max(logprobs))]
            prompts[sample["doc"]["id"]] = sample["arguments"][0][0]
        return answers, prompts, seconds


def fastest_batch(harness: Harness) -> int:
    """The batch size at which the harness answers most questions a second."""
    harness.answers(1, limit=2)  # memory is faulted in
    speeds = {}
    for size in THEIR_BATCHES:
        answers, _, seconds = harness.answers(size, limit=TRIED)
        speeds[size] = len(answers) / seconds
        print(f"lm-eval, batch size {size}: {speeds[size]:.2f} questions/s", flush=True)
    return max(speeds, key=lambda size: speeds[size])


def run(rows: list[Row], folder: Path) -> dict[str, Any]:
    """The figures of one comparison."""
    engine = TransformersEngine.load(write_policy(folder / "policy"), DTYPE, OUR_BATCH)
    data = folder / "questions.jsonl"
    write_rows(data, rows)
    test = [row for row in rows if row["split"] == "test"]
    shots = shots_of(rows)
    harness = Harness(engine, folder, write_harness_tasks(rows, shots, folder))
    batch_size = fastest_batch(harness)
    theirs, prompts, their_seconds = harness.answers(batch_size)
    started = time.perf_counter()
    results = Mmlu(data, len(test), shots, OUR_BATCH).run(engine)
    our_seconds = time.perf_counter() - started

    by_subject: dict[str, list[bool]] = defaultdict(list)
    for result in results:
        same = result.response == theirs[result.id]
        by_subject[result.detail["subject"]].append(same)
        if not same:
            print(f"{result.id}: {result.response} here, {theirs[result.id]} there; {result.detail['logprobs']}")
        assert prompts[result.id].endswith(result.prompt), f"{result.id}: the prompts differ"
    print(f"\n{'subject':40} {'questions':>9} {'same':>6}")
    for subject, same in sorted(by_subject.items()):
        print(f"{subject:40} {len(same):9} {sum(same):6}")
    print(f"\n{DTYPE}, {torch.get_num_threads()} threads, {shots} examples before each question")
    print(f"lm-eval, batch size {batch_size}: {len(test) / their_seconds:6.2f} questions/s")
    print(f"here, batch size {OUR_BATCH}:    {len(test) / our_seconds:6.2f} questions/s")
    return {
        "questions": len(test),
        "same_answers": sum(map(sum, by_subject.values())) / len(test),
        "ratio_questions_per_s": round(their_seconds / our_seconds, 2),
        "questions_per_s": round(len(test) / our_seconds, 2),
        "lm_eval_batch_size": batch_size,
        "subjects": len(by_subject),
        "accuracy": sum(result.scores["accuracy"].value for result in results) / len(test),
    }


def main() -> int:
    os.environ["HF_HUB_OFFLINE"] = "1"  # read as the harness is imported
    if not SUBJECTS and not SHARED.is_dir():
        print(f"there is no {SHARED}; set SUBJECTS to a folder of MMLU's CSV files, or COLLOQUY_SHARED_DATA")
        return 2
    with tempfile.TemporaryDirectory() as name:
        os.environ["HF_DATASETS_CACHE"] = str(Path(name) / "datasets")
        try:
            figures = run(read_questions(), Path(name))
        except BadInput as error:
            print(error)
            return 2
    print(json.dumps({"name": "mmlu_vs_lm_eval", "figures": figures}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

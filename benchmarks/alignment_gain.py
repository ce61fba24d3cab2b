"""What PPO adds to the SFT policy that it starts from: the stages of `smol`, and prompts that no stage has seen.

    make bench NAME=alignment_gain
    SEEDS=1 make bench NAME=alignment_gain
    KEEP=folder make bench NAME=alignment_gain

With KEEP everything stays in that folder, and a run that was killed goes on after the last stage that it finished.
Corpus, tokenizer and base model are those of `smol` and shared; each seed has its own split of the prompts, SFT
policy, batch of responses, reward model and PPO. The demo stops alignment after six steps to stay within its time;
here `LONGER` has four times its labels and 40 steps of PPO, beside the loss on the demonstrations. The labels are the
simulated labelers' decisions on the batch, noise and overlap as in `smol`, without a server between. Who wins on the
held-out prompts is said by the labelers' rule without noise, a control that knows what the labels were made from, and
by a judge that knows nothing of it, the base model; both are asked in both orders. MMLU's, HumanEval's and the corpus'
figures say whether anything was lost.
"""

import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from math import exp
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.corpora import ROOT
from evals.paired import compare_pairs
from evals.task import read_results, scores_of
from labeling.assignment import plan
from labeling.project import shown_order
from labeling.simulated import judge, lead_time_s
from pipelines.core import artifacts, config
from pipelines.core.jsonl import read_rows, write_json, write_rows
from pipelines.core.records import Annotation, LabelTask
from pipelines.core.workspace import write_params

SEEDS = int(os.environ.get("SEEDS", "3"))
PROMPTS = 200  # held out
ALPHA = 0.025  # on either side of an interval
DRAWS = 2000
LONGER = [
    "prepare_sft.labeling_prompts=240",
    "ppo.steps=40",
    "ppo.episodes_per_step=32",
    "ppo.learning_rate=3e-5",
    "ppo.max_new_tokens=96",  # as long as the answers that are compared
    "ppo.kl_coefficient=0.2",
    "ppo.pretraining_mix={data: demonstrations, coefficient: 1.0, sequences: 4, sequence_tokens: 256}",
]
SETTINGS = [*LONGER, f"prepare_sft.held_out_prompts={PROMPTS}", f"evaluate.judge_prompts={PROMPTS}"]
SETTINGS += [f"evaluate.{name}=0" for name in ("questions", "hatecheck_cases", "bias_prompts", "references")]
SETTINGS += ["evaluate.compare_base=false"]
SETTINGS += os.environ.get("SET", "").split()
PACKAGES = ("pipelines", "labeling", "evals", "constraints")
SHARED = ["ingest", "train_moderation", "prepare_corpus", "train_tokenizer", "tokenize_corpus", "pretrain"]
BEFORE_LABELS = ["labeling.pull_demonstrations", "pipelines.prepare_sft", "pipelines.sft", "pipelines.previous_round"]
BEFORE_LABELS += ["pipelines.pull_feedback", "pipelines.sample_completions"]
AFTER_LABELS = ["labeling.prepare_preferences", "pipelines.reward_model", "pipelines.ppo", "evals.evaluate"]


def run_stages(workspace: Path, modules: Sequence[str], seed: int) -> None:
    """Run stages one after the other in `workspace`, with `seed`; those that ended there already are not run again."""
    write_params(workspace, config.resolve(ROOT, "smol", [*SETTINGS, f"seed={seed}"]))
    variables = os.environ | {"PYTHONPATH": str(workspace)}
    variables.pop("MLFLOW_TRACKING_URI", None)
    ended = workspace / "ended.txt"
    ended.touch()
    for module in modules:
        if module in ended.read_text().split():
            continue
        print(f"  {module}", file=sys.stderr, flush=True)
        done = subprocess.run(
            [sys.executable, "-m", module], cwd=workspace, env=variables, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"{module} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        with ended.open("a") as names:
            names.write(f"{module}\n")


def label(workspace: Path, seed: int) -> None:
    """What the simulated labelers of `smol` decide on the workspace's batch, as `pull_annotations` writes it."""
    params = config.parse(config.resolve(ROOT, "smol", SETTINGS), "the parameters").labeling
    tasks = {row["id"]: LabelTask.from_row(row) for row in read_rows(workspace / artifacts.LABEL_BATCH)}
    names = [f"labeler-{number}" for number in range(params.simulated.count)]
    rows: list[dict[str, Any]] = []
    for assignment in plan(sorted(tasks), params.overlap_share, params.overlap_labelers, names):
        task = tasks[assignment.task_id]
        for labeler in assignment.assigned:
            decided = judge(task, labeler, seed, params.simulated.noise)
            annotation = Annotation(
                task_id=task.id,
                annotation_id=len(rows),
                labeler=labeler,
                simulated=True,
                ranking=decided.ranking,
                shown_order=tuple(shown_order(task)),
                flags=decided.flags,
                response_flags={},
                comment="",
                lead_time_s=lead_time_s(task),
                guideline_version="",
            )
            rows.append(annotation.to_row())
    write_rows(workspace / artifacts.ANNOTATIONS, rows)
    counts = {"labels": len(rows), "labels_needed": len(rows), "tasks": len(tasks), "tasks_needed": len(tasks)}
    write_json(workspace / artifacts.PROGRESS, counts)


def compared(workspace: Path, task: str, metric: str) -> tuple[float, float, float]:
    """The aligned model's `metric` minus the SFT policy's over the same samples, with its interval."""
    candidate, baseline = (
        scores_of(read_results(workspace / artifacts.EVALUATION_SAMPLES / side / f"{task}.jsonl"), metric)
        for side in ("candidate", "baseline")
    )
    shared = sorted(candidate.keys() & baseline.keys())
    found = compare_pairs(
        [candidate[one] for one in shared], [baseline[one] for one in shared], ALPHA, np.random.default_rng(0), DRAWS
    )
    return found.difference, found.low, found.high


def measure(workspace: Path) -> dict[str, Any]:
    """What the workspace's evaluation and PPO found."""
    results = json.loads((workspace / artifacts.EVALUATION).read_text())
    aligned = json.loads((workspace / artifacts.metrics_of("ppo")).read_text())
    reward_model = json.loads((workspace / artifacts.metrics_of("reward_model")).read_text())
    perplexity = [exp(value) for value in compared(workspace, "perplexity", "perplexity")]
    sft, ppo = (results[side]["perplexity"]["perplexity"] for side in ("baseline", "candidate"))
    return {
        "win_rate": results["judge"]["control"]["win_rate"],
        "win_rate_judge": results["judge"]["win_rate"],
        "judge_agreement": results["judge"]["agreement_with_labels"]["value"],
        "mmlu": compared(workspace, "mmlu", "accuracy"),
        "humaneval": compared(workspace, "humaneval", "pass_at_1"),
        "ppl_ratio": perplexity,
        "ppl_within": ppo["value"] <= sft["high"],
        "kl": aligned["kl_final"],
        "reward_accuracy": reward_model["held_out_accuracy"],
    }


def fingerprint() -> str:
    """Of settings and code, which a seed's result is a function of."""
    found = hashlib.sha256(json.dumps(SETTINGS).encode())
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                found.update(path.read_bytes())
    return found.hexdigest()[:12]


def copied(sources: Sequence[Path], to: Path) -> Path:
    """`to` with a copy of each of `sources` in it, whole or not there at all."""
    if not to.exists():
        begun = to.with_suffix(".begun")
        shutil.rmtree(begun, ignore_errors=True)
        for source in sources:
            shutil.copytree(source, begun / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        begun.rename(to)
    return to


def run_seed(place: Path, seed: int) -> dict[str, Any]:
    """What `seed` gives, with its workspaces in `place`."""
    packages = [ROOT / package for package in PACKAGES]
    shared = copied(packages, place / "shared")
    run_stages(shared, [f"pipelines.{stage}" for stage in SHARED], 1)
    workspace = copied([*packages, shared / "artifacts"], place / f"seed-{seed}")
    run_stages(workspace, BEFORE_LABELS, seed)
    label(workspace, seed)
    run_stages(workspace, AFTER_LABELS, seed)
    return measure(workspace)


def main() -> None:
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="colloquy-alignment-") as passing:
        place = Path(os.environ.get("KEEP", passing)) / fingerprint()
        for seed in range(1, SEEDS + 1):
            print(f"seed {seed}", file=sys.stderr, flush=True)
            found.append(run_seed(place, seed))

    def interval(value: float, low: float, high: float, signed: bool = False) -> str:
        sign = "+" if signed else ""
        return f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"

    print(f"PPO against SFT on {PROMPTS} unseen prompts, ties count half; intervals are 95 %, differences are paired")
    header = ("seed", "wins by the rule (control)", "wins by the judge", "MMLU", "HumanEval", "perplexity ratio")
    print(f"{header[0]:<6}" + "".join(f"{name:<28}" for name in header[1:]) + "KL    RM accuracy")
    for seed, one in enumerate(found, 1):
        columns = [
            interval(*(one[name][part] for part in ("value", "low", "high"))) for name in ("win_rate", "win_rate_judge")
        ]
        columns += [interval(*one[name], signed=True) for name in ("mmlu", "humaneval")] + [interval(*one["ppl_ratio"])]
        print(
            f"{seed:<6}" + "".join(f"{text:<28}" for text in columns) + f"{one['kl']:<6.2f}{one['reward_accuracy']:.2f}"
        )
    print(
        f"the judge agrees with {statistics.mean(one['judge_agreement'] for one in found):.0%} of the held-out labels"
    )
    figures = {
        "win_rate": round(statistics.mean(one["win_rate"]["value"] for one in found), 3),
        "win_rate_judge": round(statistics.mean(one["win_rate_judge"]["value"] for one in found), 3),
        "mmlu_delta": round(statistics.mean(one["mmlu"][0] for one in found), 4),
        "humaneval_delta": round(statistics.mean(one["humaneval"][0] for one in found), 4),
        "ppl_ratio": round(statistics.mean(one["ppl_ratio"][0] for one in found), 4),
        "kl": round(max(one["kl"] for one in found), 3),
        "seeds": [round(one["win_rate"]["value"], 3) for one in found],
        "not_worse": all(one["mmlu"][2] >= 0 and one["humaneval"][2] >= 0 and one["ppl_within"] for one in found),
    }
    print(json.dumps({"name": "alignment_gain", "figures": figures}))


if __name__ == "__main__":
    main()

"""Measures the aligned model and its baseline on the same samples.

In:  the aligned model, the baseline (artifacts/sft, or the registry's pinned champion), the base model (which is also
     the judge), the reward model, held-out documents and prompts, held-out preferences, the moderation model.
Out: artifacts/evaluate/results.json (every mean with n, standard error and interval, for each model; judge;
     contamination) and samples/<candidate|baseline|base>/<task>.jsonl, samples/{judge,grades,control}.jsonl.

A killed evaluation goes on after the last task, and the last reply of a judge, that it finished.
"""

import contextlib
import shutil
import time
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from evals import held_out_rewards
from evals.contamination import check_contamination
from evals.judging import judge_answers
from evals.models import ChampionMissing, baseline_engine, loaded
from evals.progress import Progress, identity_of
from evals.sandbox import Sandbox
from evals.suite import further_tasks
from evals.task import SampleResult, Task, metrics_in, summarize, summarize_groups, write_results
from evals.tasks.chat_quality import ChatQuality, Voice
from evals.tasks.humaneval import HumanEval
from evals.tasks.mmlu import Mmlu
from evals.tasks.perplexity import Perplexity
from evals.tasks.safety import Safety
from pipelines.core import artifacts
from pipelines.core.config import Params
from pipelines.core.jsonl import write_json
from pipelines.core.stage import Stage, open_stage
from pipelines.model.engine import Engine
from pipelines.model.moderation import load_moderator

INTERVAL_ALPHA = 0.05  # two-sided, of the intervals shown
CODE = (Path("evals"), Path("pipelines/model"))  # decides the results as the data do

# What the metrics file calls the values that the run's summary shows.
SHOWN = {
    "perplexity": ("perplexity", "perplexity"),
    "bits_per_byte": ("perplexity", "bits_per_byte"),
    "mmlu_accuracy": ("mmlu", "accuracy"),
    "humaneval_pass_at_1": ("humaneval", "pass_at_1"),
    "safety_compliance": ("safety", "compliance"),
    "safety_over_refusal": ("safety", "over_refusal"),
    "safety_flagged": ("safety", "flagged"),
    "leakage_leaked": ("leakage", "leaked"),
    "hatecheck_assistant_accuracy": ("hatecheck", "assistant_accuracy"),
    "hatecheck_moderator_accuracy": ("hatecheck", "moderator_accuracy"),
    "answers_stopped": ("chat_quality", "stopped"),
    "answers_not_empty": ("chat_quality", "not_empty"),
    "answers_clean": ("chat_quality", "clean"),
    "held_out_reward": ("reward", "reward"),
}


def build_tasks(params: Params) -> list[Task]:
    """Every task of the evaluation, in the order in which they run."""
    evaluate = params.evaluate
    batch_size = evaluate.batch_size
    voice = Voice(params.chat.system_prompt, params.chat.temperature, params.chat.top_p, params.seed)
    moderator = load_moderator(artifacts.TRAIN_MODERATION)
    threshold = params.chat.moderation_threshold
    tasks: list[Task] = [
        Perplexity(artifacts.CORPUS_HELD_OUT, evaluate.perplexity_tokens, evaluate.perplexity_stride, batch_size),
        Mmlu(Path(evaluate.mmlu_data), evaluate.mmlu_questions, evaluate.mmlu_shots, batch_size),
        ChatQuality(artifacts.PROMPTS_HELD_OUT, evaluate.judge_prompts, evaluate.judge_max_new_tokens, voice),
        Safety(
            Path(evaluate.safety_data),
            evaluate.safety_prompts,
            evaluate.safety_max_new_tokens,
            voice,
            moderator,
            threshold,
        ),
    ]
    tasks += further_tasks(params, voice, moderator)
    if evaluate.humaneval_tasks:
        tasks.append(
            HumanEval(
                Path(evaluate.humaneval_data),
                evaluate.humaneval_tasks,
                evaluate.humaneval_completions,
                tuple(evaluate.humaneval_k),
                evaluate.humaneval_temperature,
                evaluate.humaneval_max_new_tokens,
                evaluate.humaneval_timeout_s,
                Sandbox(evaluate.allow_unsafe_execution),
                params.seed,
            )
        )
    return tasks


class Stopwatch:
    """Seconds by what they were spent on; for the tracker and the screen, never for a file of results."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def measure(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started


Results = dict[str, list[SampleResult]]


def run_tasks(side: str, engine: Engine, tasks: Sequence[Task], progress: Progress, watch: Stopwatch) -> Results:
    """Task name -> results of the model behind `engine`; what an earlier try finished is not run again."""
    results = {}
    for task in tasks:
        with watch.measure(task.name):
            results[task.name] = progress.results(side, task.name, partial(task.run, engine))
    return results


def shown_metrics(results: dict[str, Any]) -> dict[str, float]:
    """The flat numbers of the metrics file; what is unscored is left out."""
    metrics: dict[str, float] = {}
    for prefix, side in (("", "candidate"), ("baseline_", "baseline"), ("base_", "base")):
        for name, (task, metric) in SHOWN.items():
            value = results.get(side, {}).get(task, {}).get(metric, {}).get("value")
            if value is not None:
                metrics[prefix + name] = value
    for name, report in (("judge_win_rate", results["judge"]), ("control_win_rate", results["judge"]["control"])):
        if report["win_rate"]["value"] is not None:
            metrics[name] = report["win_rate"]["value"]
    return metrics


def inputs_of(params: Params) -> list[Path]:
    """What the tasks' results are a function of, beside the parameters."""
    data = map(Path, params.evaluate.data)
    models = [artifacts.PRETRAIN, artifacts.SFT, artifacts.aligned_model(params.align.method)]
    written = [artifacts.CORPUS_HELD_OUT, artifacts.PROMPTS_HELD_OUT, artifacts.TRAIN_MODERATION]
    return [*data, *models, *written, *CODE]


def run_models(params: Params, tasks: Sequence[Task], watch: Stopwatch) -> tuple[dict[str, Results], str | None]:
    """Side -> results, and why the baseline has none."""
    progress = Progress.of(artifacts.EVALUATION_PROGRESS, identity_of(params, inputs_of(params)))
    sides = {
        "baseline": baseline_engine(params),
        "candidate": loaded(artifacts.aligned_model(params.align.method), params),
    }
    if params.evaluate.compare_base:
        sides["base"] = loaded(artifacts.PRETRAIN, params)
    found: dict[str, Results] = {}
    missing = None
    for side, opened in sides.items():
        try:
            with watch.measure("load"), opened as engine:
                found[side] = run_tasks(side, engine, tasks, progress, watch)
        except ChampionMissing as error:
            found[side], missing = {}, str(error)
            print(f"evaluate: {missing}", flush=True)
    return found, missing


def evaluate_models(params: Params, out: Path, watch: Stopwatch) -> dict[str, Any]:
    """Run everything, write the samples under `out`/samples, and return what results.json holds."""
    tasks = build_tasks(params)
    metrics_of = {task.name: task.metrics for task in tasks} | {"reward": held_out_rewards.METRICS}
    found, missing = run_models(params, tasks, watch)
    with watch.measure("reward"):
        held_out_rewards.add_rewards(found, params)
    samples = out / artifacts.EVALUATION_SAMPLES.name
    with watch.measure("judge"):
        judged = judge_answers(found, params, samples, partial(loaded, params=params), INTERVAL_ALPHA)
    results: dict[str, Any] = {}
    for side, by_task in found.items():
        results[side] = {
            task: summarize(rows, metrics_of[task] or metrics_in(rows), INTERVAL_ALPHA, params.seed)
            for task, rows in by_task.items()
        }
        for task, rows in by_task.items():
            write_results(samples / side / f"{task}.jsonl", rows)
    with watch.measure("contamination"):
        data = check_contamination(params)
    by_group = {
        side: {
            task.name: summarize_groups(by_task[task.name], task, INTERVAL_ALPHA, params.seed)
            for task in tasks
            if task.groups and task.name in by_task
        }
        for side, by_task in found.items()
    }
    champion = params.evaluate.champion_version if params.evaluate.baseline == "champion" else None
    return results | {
        "by_group": by_group,
        "judge": judged,
        "data": data,
        "method": params.align.method,
        "baseline_model": f"champion, version {champion}" if champion is not None else "sft",
        "baseline_missing": missing,
        "seed": params.seed,
        "interval_alpha": INTERVAL_ALPHA,
        "versions": {name: version(name) for name in ("numpy", "torch", "transformers")},
    }


def run(stage: Stage) -> None:
    """The stage: everything measured, results last."""
    watch = Stopwatch()
    results = evaluate_models(stage.params, stage.out, watch)
    write_json(artifacts.EVALUATION, results)
    shutil.rmtree(artifacts.EVALUATION_PROGRESS, ignore_errors=True)
    watch.seconds["load"] -= sum(watch.seconds[task] for task in results["candidate"] if task != "reward")
    print("seconds:", {name: round(seconds, 1) for name, seconds in watch.seconds.items()})
    stage.tracker.log_metrics({f"seconds_{name}": seconds for name, seconds in watch.seconds.items()})
    stage.tracker.log_artifact(artifacts.EVALUATION)
    stage.tracker.log_artifact(artifacts.EVALUATION_SAMPLES, "samples")
    stage.write_metrics(shown_metrics(results))


def main() -> None:
    with open_stage("evaluate") as stage:
        run(stage)


if __name__ == "__main__":
    main()

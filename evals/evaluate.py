"""Measures the aligned model and its baseline on the same samples.

In:  the aligned model, the baseline (artifacts/sft, or the registry's pinned champion), the base model (which is also
     the judge), the reward model, held-out documents and prompts, held-out preferences, the moderation model.
Out: artifacts/evaluate/results.json (every mean with n, standard error and interval, for each model; judge;
     contamination) and samples/<candidate|baseline|base>/<task>.jsonl, samples/{judge,grades,control}.jsonl.

A killed evaluation goes on after the last task, and the last reply of a judge, that it finished.
"""

import contextlib
import gc
import itertools
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from evals.contamination import contaminated
from evals.judge import Answer
from evals.judging import compared_answers, held_out_preferences, judge_answers, said
from evals.metrics import Score
from evals.progress import Progress, identity_of
from evals.sandbox import Sandbox
from evals.suite import further_tasks
from evals.task import SampleResult, Task, metrics_in, summarize, summarize_groups, write_results
from evals.tasks.chat_quality import ChatQuality, Voice
from evals.tasks.humaneval import HumanEval
from evals.tasks.mmlu import Mmlu
from evals.tasks.perplexity import Perplexity
from evals.tasks.safety import Safety
from pipelines.core import artifacts, registry
from pipelines.core.config import Params
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import Row, read_rows, write_json
from pipelines.core.stage import Stage, open_stage, ran_out_of_memory
from pipelines.data.decontamination import evaluation_files
from pipelines.data.evaluation_sets import evaluation_rows
from pipelines.model.engine import Engine
from pipelines.model.engine_choice import load_engine
from pipelines.model.moderation import load_moderator
from pipelines.model.rendering import render_answer
from pipelines.model.rewards import RewardScorer

INTERVAL_ALPHA = 0.05  # two-sided, of the intervals shown
EVALUATION_DATA = Path("evals/datasets")
CODE = (Path("evals"), Path("pipelines/model"))  # decides the results as the data do
REWARD_METRICS = ("reward", "standardized")
# How much of the corpus is looked through again; prepare_corpus has looked through all of it.
CONTAMINATION_CHARACTERS = 4_000_000

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


@contextlib.contextmanager
def loaded(folder: Path, params: Params) -> Iterator[Engine]:
    """An engine for the model in `folder`, gone afterwards: two large models need not fit at once."""
    if not (folder / "config.json").exists():
        raise BadInput(f"{folder} holds no model (config.json is missing); run the stage that writes it first")
    evaluate = params.evaluate
    engine = load_engine(folder, evaluate.dtype, evaluate.batch_size, evaluate.engine)
    try:
        yield engine
    finally:
        del engine
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def short(error: Exception, folder: Path) -> str:
    """The first line of what `error` says, without the name that `folder` has this time."""
    lines = str(error).replace(str(folder), "its folder").splitlines()
    return lines[0] if lines else type(error).__name__


class ChampionMissing(Exception):
    """The champion to compare with can't be fetched or loaded: every comparison with it stays open."""


@contextlib.contextmanager
def baseline_engine(params: Params) -> Iterator[Engine]:
    """The model to compare with: the pinned champion, or else the model that alignment started from.

    Raises:
        ChampionMissing: it is a champion, and its files are gone or hold no model that works.
    """
    number = params.evaluate.champion_version
    with contextlib.ExitStack() as stack:
        if params.evaluate.baseline == "sft" or number is None:
            yield stack.enter_context(loaded(artifacts.SFT, params))
            return
        try:
            folder = registry.download(number, Path(stack.enter_context(TemporaryDirectory())))
        except BadInput as error:
            raise ChampionMissing(f"the champion, version {number}, is gone: {error}") from error
        try:
            engine = stack.enter_context(loaded(folder, params))
        except Exception as error:  # a broken folder makes libraries raise all kinds
            if ran_out_of_memory(error):
                raise
            raise ChampionMissing(f"the champion, version {number}, does not load: {short(error, folder)}") from error
        yield engine


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


Chat = list[dict[str, str]]


def rewards(answers: Sequence[tuple[Chat, Answer]], scorer: RewardScorer) -> NDArray[np.float64]:
    """The reward model's score of each (chat, answer), rendered as in its training: without the system prompt."""
    rendered = [render_answer(scorer.tokenizer, chat, answer.text, answer.stopped) for chat, answer in answers]
    return np.array(scorer.score(rendered))


class RewardScale(NamedTuple):
    """Where the baseline's rewards lie."""

    mean: float
    deviation: float


def reward_scores(value: float, scale: RewardScale | None) -> dict[str, Score]:
    """The raw reward, and on `scale` if there is one."""
    raw = {"reward": Score(value)}
    return raw | {"standardized": Score((value - scale.mean) / scale.deviation)} if scale else raw


def add_rewards(found: dict[str, Results], params: Params) -> None:
    """Add the task `reward`: held-out rewards of both models' answers by this run's reward model.

    A reward has no unit of its own, so `standardized` counts from the baseline's mean in standard deviations over
    the baseline's answers and those of the held-out preferences together. Without a baseline it is left out.
    """
    scorer = RewardScorer.load(artifacts.REWARD_MODEL, params.evaluate.dtype)
    chats = {row["id"]: row["messages"] for row in read_rows(artifacts.PROMPTS_HELD_OUT)}
    raw = {
        side: rewards([(chats[result.id], said(result)) for result in results["chat_quality"]], scorer)
        for side, results in found.items()
        if results
    }
    labelled = [
        (preference.prompt.chat, answer)
        for preference in held_out_preferences(params.judge.label_pairs)
        for answer in compared_answers(preference)
    ]
    scale = None
    if "baseline" in raw:
        spread = np.concatenate([raw["baseline"], rewards(labelled, scorer)])
        scale = RewardScale(float(raw["baseline"].mean()), float(spread.std()) or 1.0)
    for side, values in raw.items():
        found[side]["reward"] = [
            replace(answer, scores=reward_scores(value, scale))
            for answer, value in zip(found[side]["chat_quality"], values.tolist(), strict=True)
        ]


def training_texts() -> Iterator[str]:
    """What the model was trained on: all demonstrations and prompts, and the beginning of the corpus."""
    for path in (artifacts.SFT_TRAIN, artifacts.PROMPTS_LABELING, artifacts.PROMPTS_ALIGNMENT):
        for row in read_rows(path):
            yield "\n".join(message["content"] for message in row["messages"])
    left = CONTAMINATION_CHARACTERS
    for row in read_rows(artifacts.CORPUS_TRAIN):
        if left <= 0:
            return
        left -= len(row["text"])
        yield row["text"]


def check_contamination(params: Params) -> dict[str, Any]:
    """Evaluation items that occur in the training data."""
    files = evaluation_files(EVALUATION_DATA, *params.evaluate.data)
    items: Iterator[Row] = itertools.chain.from_iterable(map(evaluation_rows, files))
    return contaminated(items, training_texts(), params.prepare_corpus.decontamination_ngram)


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
    metrics_of = {task.name: task.metrics for task in tasks} | {"reward": REWARD_METRICS}
    found, missing = run_models(params, tasks, watch)
    with watch.measure("reward"):
        add_rewards(found, params)
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

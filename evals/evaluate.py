"""Measures the aligned model and its baseline on the same samples.

In:  the aligned model, the baseline (artifacts/sft, or the registry's pinned champion), the reward model, the base
     model as judge, held-out documents and prompts, held-out preferences, the moderation model.
Out: artifacts/evaluate/results.json (every mean with n, standard error and interval, for both models; judge;
     contamination) and samples/<candidate|baseline>/<task>.jsonl, samples/judge.jsonl, samples/control.jsonl.
"""

import contextlib
import gc
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evals import judge as judging
from evals.contamination import contaminated
from evals.metrics import Score
from evals.sandbox import Sandbox
from evals.suite import further_tasks
from evals.task import SampleResult, Task, metrics_in, summarize, summarize_groups, write_results
from evals.tasks.chat_quality import ChatQuality, Voice
from evals.tasks.custom import decide
from evals.tasks.humaneval import HumanEval
from evals.tasks.mmlu import Mmlu
from evals.tasks.perplexity import Perplexity
from evals.tasks.safety import Safety
from pipelines.core import artifacts, registry
from pipelines.core.config import Params
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import Row, read_rows, write_json, write_rows
from pipelines.core.records import Preference
from pipelines.core.stage import Stage, open_stage
from pipelines.data.decontamination import evaluation_files
from pipelines.data.evaluation_sets import evaluation_rows
from pipelines.model.engine import Engine
from pipelines.model.engine_choice import load_engine
from pipelines.model.moderation import Moderator
from pipelines.model.rendering import render_answer
from pipelines.model.rewards import RewardScorer

INTERVAL_ALPHA = 0.05  # two-sided, of the intervals shown
EVALUATION_DATA = Path("evals/datasets")
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
    moderator = Moderator.load(artifacts.TRAIN_MODERATION)
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
def baseline_folder(params: Params) -> Iterator[Path]:
    """The model to compare with: the pinned champion, or else the model that alignment started from."""
    number = params.evaluate.champion_version
    if params.evaluate.baseline == "sft" or number is None:
        yield artifacts.SFT
        return
    with TemporaryDirectory() as folder:
        yield registry.download(number, Path(folder))


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


def run_tasks(engine: Engine, tasks: Sequence[Task], watch: Stopwatch) -> Results:
    """Task name -> results of the model behind `engine`."""
    results = {}
    for task in tasks:
        with watch.measure(task.name):
            results[task.name] = task.run(engine)
    return results


def rewards(answers: Sequence[tuple[list[dict[str, str]], str]], scorer: RewardScorer) -> NDArray[np.float64]:
    """The reward model's score of each (chat, answer), rendered as in its training: without the system prompt."""
    return np.array(scorer.score([render_answer(scorer.tokenizer, chat, answer) for chat, answer in answers]))


def add_rewards(found: dict[str, Results], params: Params) -> None:
    """Add the task `reward`: held-out rewards of both models' answers by this run's reward model.

    A reward has no unit of its own, so `standardized` counts from the baseline's mean in standard deviations over
    the baseline's answers and those of the held-out preferences together.
    """
    scorer = RewardScorer.load(artifacts.REWARD_MODEL, params.evaluate.dtype)
    chats = {row["id"]: row["messages"] for row in read_rows(artifacts.PROMPTS_HELD_OUT)}
    raw = {
        side: rewards([(chats[answer.id], answer.response) for answer in results["chat_quality"]], scorer)
        for side, results in found.items()
    }
    labelled = [
        (preference.prompt.chat, text)
        for preference in held_out_preferences(params.evaluate.judge_label_pairs)
        for text in (preference.chosen, preference.rejected)
    ]
    spread = np.concatenate([raw["baseline"], rewards(labelled, scorer)])
    mean, deviation = float(raw["baseline"].mean()), float(spread.std()) or 1.0
    for side, values in raw.items():
        found[side]["reward"] = [
            replace(answer, scores={"reward": Score(value), "standardized": Score((value - mean) / deviation)})
            for answer, value in zip(found[side]["chat_quality"], values.tolist(), strict=True)
        ]


def said(result: SampleResult) -> judging.Answer:
    """The answer that a result of chat_quality holds."""
    return judging.Answer(result.response, result.detail["finish_reason"] == "stop")


def held_out_preferences(count: int) -> list[Preference]:
    """The first `count` preferences that the reward model was not trained on."""
    return [Preference.from_row(row) for row in itertools.islice(read_rows(artifacts.PREFERENCES_HELD_OUT), count)]


def answer_pairs(found: dict[str, Results]) -> list[judging.Pair]:
    """Both models' answers to the same prompts and questions."""
    return [
        judging.Pair(candidate.id, candidate.prompt, said(candidate), said(baseline), candidate.detail["category"])
        for task in ("chat_quality", "chat_questions")
        for candidate, baseline in zip(found["candidate"].get(task, ()), found["baseline"].get(task, ()), strict=True)
    ]


def label_pairs(count: int) -> list[judging.Pair]:
    """Held-out preferences as pairs whose candidate is the answer that people chose."""
    return [
        judging.Pair(
            preference.id,
            preference.prompt.messages[-1].content,
            judging.Answer(preference.chosen),
            judging.Answer(preference.rejected),
            preference.prompt.category,
        )
        for preference in held_out_preferences(count)
    ]


@contextlib.contextmanager
def opened_judge(params: Params) -> Iterator[judging.Judge]:
    """The endpoint that params name, or the base model, which no reward has touched."""
    evaluate = params.evaluate
    if evaluate.judge_endpoint is not None:
        if evaluate.judge_model is None:
            raise BadInput("evaluate.judge_endpoint needs evaluate.judge_model: the model's name at that address")
        yield judging.EndpointJudge(evaluate.judge_endpoint, evaluate.judge_model)
        return
    with loaded(artifacts.PRETRAIN, params) as engine:
        yield judging.LocalJudge("base model", engine, evaluate.batch_size)


def judge_answers(found: dict[str, Results], params: Params, out: Path) -> dict[str, Any]:
    """The judge's report, with its agreement with the labels, and the control's beside it."""
    pairs = answer_pairs(found)
    with opened_judge(params) as judge:
        labelled = judging.compare(judge, label_pairs(params.evaluate.judge_label_pairs))
        judgements = judging.compare(judge, pairs)
        report = judging.report(judge, judgements, INTERVAL_ALPHA, params.seed)
        for results in found.values():
            results |= {task: decide(rows, judge) for task, rows in results.items() if task.startswith("custom_")}
    report["agreement_with_labels"] = judging.agreement_with_labels(labelled, INTERVAL_ALPHA, params.seed)
    control = judging.RuleJudge()
    controlled = judging.compare(control, pairs)
    report["control"] = judging.report(control, controlled, INTERVAL_ALPHA, params.seed)
    write_rows(out / "judge.jsonl", (judgement.to_row() for judgement in judgements))
    write_rows(out / "control.jsonl", (judgement.to_row() for judgement in controlled))
    return report


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
    for prefix, side in (("", "candidate"), ("baseline_", "baseline")):
        for name, (task, metric) in SHOWN.items():
            value = results[side].get(task, {}).get(metric, {}).get("value")
            if value is not None:
                metrics[prefix + name] = value
    for name, report in (("judge_win_rate", results["judge"]), ("control_win_rate", results["judge"]["control"])):
        if report["win_rate"]["value"] is not None:
            metrics[name] = report["win_rate"]["value"]
    return metrics


def evaluate_models(params: Params, out: Path, watch: Stopwatch) -> dict[str, Any]:
    """Run everything, write the samples under `out`/samples, and return what results.json holds."""
    tasks = build_tasks(params)
    metrics_of = {task.name: task.metrics for task in tasks} | {"reward": REWARD_METRICS}
    found: dict[str, Results] = {}
    with baseline_folder(params) as baseline:
        for side, folder in (("baseline", baseline), ("candidate", artifacts.aligned_model(params.align.method))):
            with watch.measure("load"), loaded(folder, params) as engine:
                found[side] = run_tasks(engine, tasks, watch)
    with watch.measure("reward"):
        add_rewards(found, params)
    samples = out / artifacts.EVALUATION_SAMPLES.name
    with watch.measure("judge"):
        judged = judge_answers(found, params, samples)
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
            if task.groups
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
        "seed": params.seed,
        "interval_alpha": INTERVAL_ALPHA,
        "versions": {name: version(name) for name in ("numpy", "torch", "transformers")},
    }


def run(stage: Stage) -> None:
    """The stage: everything measured, results last."""
    watch = Stopwatch()
    results = evaluate_models(stage.params, stage.out, watch)
    write_json(artifacts.EVALUATION, results)
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

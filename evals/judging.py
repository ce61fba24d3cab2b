"""Runs the judge that the parameters name over both models' answers, and the control beside it."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from evals.criteria import grade_answers
from evals.judge import Answer, Pair, agreement_with_labels, compare, report
from evals.judges import EndpointJudge, LocalJudge, Prices, Replies, RuleJudge
from evals.task import SampleResult, evenly
from evals.tasks.custom import decide
from pipelines.core import artifacts
from pipelines.core.config import Params
from pipelines.core.digests import file_sha256
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_json, read_rows, write_rows
from pipelines.core.records import Preference
from pipelines.model.engine import Engine

REPLIES = artifacts.EVALUATION_PROGRESS / "replies.jsonl"
WEIGHTS = "model.safetensors"
CONVERSATIONS = ("chat_quality", "chat_questions")  # the tasks whose answers are compared
Loader = Callable[[Path], AbstractContextManager[Engine]]


def held_out_preferences(count: int) -> list[Preference]:
    """The first `count` preferences that the reward model was not trained on."""
    return [Preference.from_row(row) for row in itertools.islice(read_rows(artifacts.PREFERENCES_HELD_OUT), count)]


def said(result: SampleResult) -> Answer:
    """The answer that a result of chat_quality holds."""
    return Answer(result.response, result.detail["finish_reason"] == "stop")


def answer_pairs(found: Mapping[str, Mapping[str, Sequence[SampleResult]]]) -> list[Pair]:
    """Both models' answers to the same prompts and questions; none without a baseline."""
    candidate, baseline = (
        {result.id: result for task in CONVERSATIONS for result in found[side].get(task, ())}
        for side in ("candidate", "baseline")
    )
    return [
        Pair(result.id, result.prompt, said(result), said(baseline[result.id]), result.detail["category"])
        for result in candidate.values()
        if result.id in baseline
    ]


def compared_answers(preference: Preference) -> tuple[Answer, Answer]:
    """The chosen and the rejected answer."""
    return (
        Answer(preference.chosen, preference.chosen_stopped),
        Answer(preference.rejected, preference.rejected_stopped),
    )


def label_pairs(preferences: Sequence[Preference]) -> list[Pair]:
    """Preferences as pairs whose candidate is the answer that the labelers chose."""
    return [
        Pair(
            preference.id,
            preference.prompt.messages[-1].content,
            *compared_answers(preference),
            preference.prompt.category,
        )
        for preference in preferences
    ]


def refuse_reward_model(folder: Path) -> None:
    """Check that a judge is not the model that this run optimised against.

    Raises:
        BadInput: `folder` is this run's reward model, has its weights, or holds a model that scores and can't read.
    """
    ours, weights = artifacts.REWARD_MODEL / WEIGHTS, folder / WEIGHTS
    same = weights.exists() and ours.exists() and file_sha256(weights) == file_sha256(ours)
    if same or folder.resolve() == artifacts.REWARD_MODEL.resolve():
        raise BadInput(f"judge.model {folder} is this run's reward model, which the policy was trained to please")
    kinds = read_json(folder / "config.json").get("architectures") or []
    if any("SequenceClassification" in kind for kind in kinds):
        raise BadInput(f"judge.model {folder} is a reward model ({', '.join(kinds)}); a judge has to read and answer")


@contextlib.contextmanager
def opened_judge(params: Params, load: Loader) -> Iterator[EndpointJudge | LocalJudge]:
    """The endpoint that params name, the model in a folder, or the base model, which no reward has touched."""
    judge = params.judge
    if judge.endpoint is not None:
        if judge.model is None:
            raise BadInput("judge.endpoint needs judge.model: the model's name at that address")
        yield EndpointJudge(
            judge.endpoint,
            judge.model,
            Replies(REPLIES),
            repeats=judge.repeats,
            temperature=judge.temperature,
            concurrent=judge.concurrent,
            attempts=judge.attempts,
            timeout_s=judge.timeout_s,
            prices=Prices(judge.price_prompt_tokens, judge.price_completion_tokens),
        )
        return
    folder = Path(judge.model) if judge.model else artifacts.PRETRAIN
    refuse_reward_model(folder)
    with load(folder) as engine:
        yield LocalJudge("base model" if judge.model is None else folder.name, engine, params.evaluate.batch_size)


def judge_answers(
    found: Mapping[str, dict[str, list[SampleResult]]], params: Params, out: Path, load: Loader, alpha: float
) -> dict[str, Any]:
    """The judge's report with its grades and its agreement with the labels, and the control's beside it.

    Writes judge.jsonl, grades.jsonl and control.jsonl to `out`, and decides in `found` what custom evals left to a
    judge.
    """
    pairs, seed = answer_pairs(found), params.seed
    preferences = held_out_preferences(params.judge.label_pairs)
    with opened_judge(params, load) as judge:
        labelled = compare(judge, label_pairs(preferences))
        judgements = compare(judge, pairs)
        graded = evenly(pairs, params.judge.graded_prompts)
        criteria, grades = grade_answers(judge, graded, alpha, seed)
        found_report = report(judge, judgements, alpha, seed)
        for results in found.values():
            results |= {task: decide(rows, judge) for task, rows in results.items() if task.startswith("custom_")}
    control = RuleJudge()
    controlled = compare(control, pairs)
    write_rows(out / "judge.jsonl", (judgement.to_row() for judgement in judgements))
    write_rows(out / "grades.jsonl", grades)
    write_rows(out / "control.jsonl", (judgement.to_row() for judgement in controlled))
    simulated = sum(preference.simulated for preference in preferences)
    return found_report | {
        "local": params.judge.endpoint is None,
        "criteria": criteria,
        "agreement_with_labels": agreement_with_labels(labelled, simulated, alpha, seed),
        "control": report(control, controlled, alpha, seed),
    }

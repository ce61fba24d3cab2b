"""What this run's reward model gives both models' answers to held-out prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evals.judge import Answer
from evals.judging import compared_answers, held_out_preferences, said
from evals.metrics import Score
from evals.task import SampleResult
from pipelines.core import artifacts
from pipelines.core.config import Params
from pipelines.core.jsonl import read_rows
from pipelines.model.rendering import render_answer
from pipelines.model.rewards import RewardScorer

METRICS = ("reward", "standardized")
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


def add_rewards(found: Mapping[str, dict[str, list[SampleResult]]], params: Params) -> None:
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

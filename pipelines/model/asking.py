"""Which tasks people are asked first, and what an earlier reward model says of them; people never see its scores."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from itertools import combinations

from pipelines.core.records import LabelTask
from pipelines.model.rendering import render_answer
from pipelines.model.rewards import RewardScorer


def score_tasks(scorer: RewardScorer, tasks: Sequence[LabelTask]) -> list[dict[str, float]]:
    """The reward of each completion of each task, by its id."""
    rendered = [
        render_answer(scorer.tokenizer, task.prompt.chat, completion.text, completion.finish_reason == "stop")
        for task in tasks
        for completion in task.completions
    ]
    scores = iter(scorer.score(rendered))
    return [{completion.id: round(next(scores), 6) for completion in task.completions} for task in tasks]


def unsureness(scores: Mapping[str, float]) -> float:
    """How unsure a reward model is of the order: the mean chance that it has a pair the wrong way round, 0 to 0.5."""
    chances = [1 / (1 + math.exp(abs(a - b))) for a, b in combinations(scores.values(), 2)]
    return sum(chances) / len(chances)


def difference(texts: Sequence[str]) -> float:
    """How far responses differ: one less the mean share of words that two of them have in common, 0 to 1."""
    words = [set(text.lower().split()) for text in texts]
    shares = [len(a & b) / len(a | b) if a | b else 1.0 for a, b in combinations(words, 2)]
    return 1 - sum(shares) / len(shares)


def in_order_of_asking(tasks: Sequence[LabelTask], ask_first: str) -> list[LabelTask]:
    """`tasks`, those first that teach most: `least_sure`, `most_different`, or `any`, by their ids."""
    gain = {
        "any": lambda task: 0.0,
        "least_sure": lambda task: unsureness(task.scores),
        "most_different": lambda task: difference([completion.text for completion in task.completions]),
    }[ask_first]
    return sorted(tasks, key=lambda task: (-gain(task), task.id))


def checked(task_ids: Sequence[str], share: float, seed: int) -> set[str]:
    """`share` of the tasks, rounded up, which people rank although a reward model does: a draw by the seed."""
    drawn = sorted(task_ids, key=lambda task_id: hashlib.sha256(f"{seed}:checked:{task_id}".encode()).digest())
    return set(drawn[: math.ceil(share * len(drawn))])

"""Rankings to weighted pairs, of people and of a reward model, and which prompts are held out. Pure functions."""

import hashlib
import random
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from labeling.ranking import Ranking, consensus, strongest_pairs
from pipelines.core.records import Annotation, LabelTask, Preference, content_id


def preferences_of(task: LabelTask, rankings: Sequence[Ranking], limit: int, seed: int) -> list[Preference]:
    """The pairs to train on that `rankings` of `task` agree on; none when they leave everything open."""
    agreed = consensus(rankings)
    texts = {completion.id: completion.text for completion in task.completions}
    stopped = {completion.id: completion.finish_reason == "stop" for completion in task.completions}
    rng = random.Random(hashlib.sha256(f"{seed}:{task.id}".encode()).digest())
    pairs = strongest_pairs(agreed, len(agreed.margins), [rng.random() for _ in agreed.margins])
    distinct = [(better, worse) for better, worse in pairs if texts[better] != texts[worse]][:limit]
    return [
        Preference(
            id=content_id([task.id, better, worse]),
            prompt=task.prompt,
            chosen=texts[better],
            rejected=texts[worse],
            weight=1 / len(distinct),
            simulated=False,
            chosen_stopped=stopped[better],
            rejected_stopped=stopped[worse],
        )
        for better, worse in distinct
    ]


def people_preferences(
    tasks: Mapping[str, LabelTask], labels: Mapping[str, Sequence[Annotation]], limit: int, seed: int
) -> list[Preference]:
    """The pairs that labelers agree on; one simulated label marks those of its task."""
    return [
        replace(pair, simulated=any(label.simulated for label in given))
        for task_id, given in labels.items()
        for pair in preferences_of(tasks[task_id], [label.ranking for label in given], limit, seed)
    ]


def by_score(scores: Mapping[str, float]) -> Ranking:
    """The order in which a reward model puts responses; equal scores are a tie."""
    levels = sorted(set(scores.values()), reverse=True)
    return tuple(tuple(sorted(name for name in scores if scores[name] == level)) for level in levels)


def model_preferences(
    tasks: Iterable[LabelTask], simulated: bool, room: int, limit: int, seed: int
) -> list[Preference]:
    """At most `room` pairs by the scores of an earlier reward model, of tasks that nobody was asked about."""
    found: list[Preference] = []
    for task in sorted(tasks, key=lambda task: task.id):
        if not task.asked:
            pairs = preferences_of(task, [by_score(task.scores)], limit, seed)
            if len(found) + len(pairs) <= room:
                found += [replace(pair, simulated=simulated, by_reward_model=True) for pair in pairs]
    return found


def prompt_of(pair: Preference) -> str:
    """What a split goes by: the same question in two rounds is one prompt."""
    return content_id(pair.prompt.chat)


def room_for_model(pairs: Sequence[Preference], share: float) -> int:
    """How many pairs by a reward model may join `pairs`, some of which are by one, so that they are at most `share`."""
    by_model = sum(pair.by_reward_model for pair in pairs)
    by_people = len(pairs) - by_model
    return max(0, int(share / (1 - share) * by_people) - by_model) if share < 1 else sys.maxsize


def once(pairs: Iterable[Preference]) -> list[Preference]:
    """`pairs` of which no two compare the same answers: people before a reward model, and the later round counts."""
    ordered = sorted(pairs, key=lambda pair: not pair.by_reward_model)
    return list({(prompt_of(pair), *sorted((pair.chosen, pair.rejected))): pair for pair in ordered}.values())


def weighed(pairs: Sequence[Preference]) -> list[Preference]:
    """`pairs` with weights by which every prompt counts alike, whichever rounds its pairs are of."""
    count = Counter(map(prompt_of, pairs))
    return [replace(pair, weight=1 / count[prompt_of(pair)]) for pair in pairs]


def held_out_prompts(prompts: Iterable[str], share: float, seed: int) -> set[str]:
    """`share` of the prompts, rounded, at least one and never all of them where there are two or more."""
    drawn = sorted(set(prompts), key=lambda prompt: hashlib.sha256(f"{seed}:held out:{prompt}".encode()).digest())
    if share == 0 or len(drawn) < 2:
        return set()
    return set(drawn[: min(max(1, round(share * len(drawn))), len(drawn) - 1)])

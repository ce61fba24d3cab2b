"""Labelers that are programs: they rank by `core/simulated_rule.py` plus noise, for demos and tests only.

Each is a user of its own who submits through Label Studio's API as a person's browser does. What a labeler decides
on a task depends on nothing but the task, its address, the seed and the noise.
"""

import hashlib
import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from labeling.accounts import Account
from labeling.client import LabelStudio, ServerTask
from labeling.judgement import Judgement, to_result
from pipelines.core.records import LabelTask
from pipelines.core.simulated_rule import rule_score

THREADS = 2  # labelers at work at once; with more, SQLite's write lock makes them slower
TIE = 0.01  # scores closer than this are the same to a labeler
UNACCEPTABLE = 0.45  # below this score a response is not acceptable
SECONDS_PER_WORD = 0.25  # 240 words a minute, a usual reading speed
SECONDS_TO_DECIDE = 4.0


def judge(task: LabelTask, labeler: str, seed: int, noise: float) -> Judgement:
    """What `labeler` decides on `task`: the rule's order, where each neighbouring pair is swapped with chance `noise`.

    Pairs are passed once from the top, so that a response can sink further than one place.
    """
    rng = random.Random(hashlib.sha256(f"{seed}:{labeler}:{task.id}".encode()).digest())
    prompt = task.prompt.messages[-1].content
    scores = {
        completion.id: rule_score(prompt, completion.text, completion.finish_reason == "stop")
        for completion in task.completions
    }
    order = sorted(scores, key=lambda name: (-scores[name], name))
    for place in range(len(order) - 1):
        if rng.random() < noise:
            order[place], order[place + 1] = order[place + 1], order[place]
    groups = [[order[0]]]
    for above, name in zip(order, order[1:], strict=False):
        if abs(scores[above] - scores[name]) < TIE:
            groups[-1].append(name)
        else:
            groups.append([name])
    flags = ("none_acceptable",) if max(scores.values()) < UNACCEPTABLE else ()
    return Judgement(tuple(tuple(group) for group in groups), flags)


def lead_time_s(task: LabelTask) -> float:
    """The seconds that a person would need to read `task` and decide."""
    texts = [message.content for message in task.prompt.messages] + [answer.text for answer in task.completions]
    return round(SECONDS_TO_DECIDE + SECONDS_PER_WORD * sum(len(text.split()) for text in texts), 1)


def label(
    admin: LabelStudio,
    accounts: Sequence[Account],
    open_tasks: Mapping[str, Sequence[ServerTask]],
    batch: Mapping[str, LabelTask],
    seed: int,
    noise: float,
) -> int:
    """Let each labeler (by e-mail) submit its open tasks; returns how many annotations were made."""

    def work(account: Account) -> int:
        todo = open_tasks.get(account.email, ())
        with LabelStudio(admin.url, account.token) as browser:
            for server_task in todo:
                task = batch[server_task.data["task_id"]]
                result = to_result(judge(task, account.email, seed, noise), server_task.data["shown_order"])
                browser.annotate(server_task.id, result, lead_time_s(task))
        return len(todo)

    with ThreadPoolExecutor(THREADS) as threads:
        return sum(threads.map(work, accounts))

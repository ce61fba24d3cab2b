"""Who is asked about which task: the open-source server assigns nobody, so the plan is made here."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.core.errors import BadInput


@dataclass(frozen=True, slots=True)
class Assignment:
    """How many labels a task needs and from whom; `assigned` is empty where anybody may take it."""

    task_id: str
    needed: int
    assigned: tuple[str, ...]


def _shuffled(names: Sequence[str], salt: str) -> list[str]:
    """`names` in an order that depends on nothing but them and `salt`."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{salt}:{name}".encode()).digest())


def plan(
    task_ids: Sequence[str], overlap_share: float, overlap_labelers: int, labelers: Sequence[str] | None
) -> list[Assignment]:
    """One assignment per task, in the order of `task_ids`.

    `overlap_share` of the tasks, rounded, go to `overlap_labelers` labelers each, the others to one; loads differ by
    one at most. With `labelers` None (people who are not known yet) only the numbers are planned, and Label
    Studio's label stream sees to it that nobody gets a task twice.

    Raises:
        BadInput: there are fewer labelers than one task needs.
    """
    if labelers is not None and len(labelers) < overlap_labelers:
        raise BadInput(
            f"labeling.overlap_labelers is {overlap_labelers} and there are {len(labelers)} labelers; "
            "lower it, or raise labeling.simulated.count"
        )
    mixed = _shuffled(task_ids, "overlap")
    overlapping = set(mixed[: round(overlap_share * len(mixed))])
    load = dict.fromkeys(labelers or (), 0)
    planned = {}
    for task_id in mixed:
        needed = overlap_labelers if task_id in overlapping else 1
        assigned = sorted(_shuffled(list(load), task_id), key=lambda name: load[name])[:needed]
        for name in assigned:
            load[name] += 1
        planned[task_id] = Assignment(task_id, needed, tuple(sorted(assigned)))
    return [planned[task_id] for task_id in task_ids]

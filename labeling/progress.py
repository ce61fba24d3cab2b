"""How far a batch is: which labels were asked for, which are there, and where the labelers agree too little."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from labeling.agreement import by_labeler, task_counts
from labeling.client import ServerTask, User
from labeling.judgement import CANNOT_JUDGE, unlabeled_reason
from labeling.snapshot import annotation_of
from pipelines.core.records import Annotation

NAMED_TASKS = 10  # of the least agreement, that a look names


@dataclass(frozen=True, slots=True)
class TaskProgress:
    """One task of the batch: who gave a label that counts, and which submissions don't and why."""

    server_task: ServerTask
    needed: int
    more: int  # labels asked for on top, because the first ones agree too little
    assigned: tuple[str, ...]  # e-mail addresses; empty: anybody
    labels: tuple[Annotation, ...]  # those that count, by e-mail address, the latest of each labeler
    not_counted: tuple[tuple[str, str], ...]  # e-mail address, reason

    @property
    def labeled_by(self) -> frozenset[str]:
        return frozenset(label.labeler for label in self.labels)

    @property
    def done(self) -> int:
        """Labels that count towards the needed ones."""
        return min(self.needed, len(self.labels))

    @property
    def open(self) -> bool:
        """Whether somebody is still asked."""
        return len(self.labels) < self.needed + self.more

    @property
    def agreement(self) -> float | None:
        """The share of pairs that its labelers order alike; None where nothing can be compared."""
        counts = task_counts([label.ranking for label in self.labels if CANNOT_JUDGE not in label.flags])
        return counts.alike / counts.compared if counts.compared else None


@dataclass(frozen=True, slots=True)
class Progress:
    """The whole batch."""

    tasks: tuple[TaskProgress, ...]
    deleted: tuple[str, ...]  # tasks of the plan that the server no longer has
    needed: int  # labels, those of deleted tasks included

    @property
    def done(self) -> int:
        return sum(task.done for task in self.tasks)

    def to_row(self) -> dict[str, int]:
        """The figures that a report shows."""
        whole = sum(task.done == task.needed for task in self.tasks)
        tasks = len(self.tasks) + len(self.deleted)
        return {"labels": self.done, "labels_needed": self.needed, "tasks": whole, "tasks_needed": tasks}


def measure(
    plan: Sequence[Mapping[str, Any]],
    server_tasks: Iterable[ServerTask],
    users: Mapping[int, User],
    min_lead_time_s: float,
) -> Progress:
    """Compare what was asked for, the `tasks` of `.run/push_tasks.json`, with what the server holds."""
    of_id = {task.data.get("task_id"): task for task in server_tasks}
    tasks = []
    for entry in plan:
        if (task := of_id.get(entry["task_id"])) is None:
            continue
        counted: dict[str, Annotation] = {}
        not_counted = []
        for given in task.annotations:
            user = users.get(given.completed_by, User(given.completed_by, "a deleted user"))
            annotation = replace(annotation_of(task, given, user), labeler=user.email)
            if reason := unlabeled_reason(annotation, min_lead_time_s):
                not_counted.append((user.email, reason))
            else:
                counted[user.email] = annotation
        tasks.append(
            TaskProgress(
                server_task=task,
                needed=entry["needed"],
                more=entry.get("more", 0),
                assigned=tuple(entry["assigned"]),
                labels=tuple(counted.values()),
                not_counted=tuple(not_counted),
            )
        )
    deleted = tuple(entry["task_id"] for entry in plan if entry["task_id"] not in of_id)
    return Progress(tuple(tasks), deleted, sum(entry["needed"] for entry in plan))


def report(progress: Progress, url: str) -> Iterable[str]:
    """Lines that say how far the labelers are."""
    row = progress.to_row()
    yield f"labels: {row['labels']} of {row['labels_needed']}, tasks: {row['tasks']} of {row['tasks_needed']}; {url}"
    given = Counter(email for task in progress.tasks for email in task.labeled_by)
    asked = Counter(email for task in progress.tasks for email in task.assigned)
    for email in sorted(given | asked):
        yield f"  {email}: {given[email]}" + (f" of {asked[email]}" if asked else "")
    for task in progress.tasks:
        for email, reason in task.not_counted:
            yield f"  task {task.server_task.id}: what {email} submitted does not count ({reason}); it can be updated"
    if progress.deleted:
        yield f"  {len(progress.deleted)} tasks were deleted in Label Studio; labeling.push_tasks puts them back"


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Labelers agree on less than the floor."""

    agreement: float | None  # None: no task was ranked by two labelers
    floor: float
    compared_tasks: int
    disputed: tuple[TaskProgress, ...]  # those under the floor, least agreement first

    def __str__(self) -> str:
        if self.agreement is None:
            return (
                "no task was ranked by two labelers, so nothing says how far they agree; raise labeling.overlap_share, "
                "or set prepare_preferences.min_agreement=0 to train on labels that nobody has checked"
            )
        return (
            f"labelers agree on {self.agreement:.1%} of the pairs of {self.compared_tasks} tasks, under the floor "
            f"prepare_preferences.min_agreement={self.floor:g}"
        )


def disagreement(progress: Progress, floor: float) -> Disagreement | None:
    """What is wrong where labelers agree on less than `floor` of the pairs; None where all is well."""
    if floor == 0:
        return None
    rankings = [[label.ranking for label in task.labels if CANNOT_JUDGE not in label.flags] for task in progress.tasks]
    counts = [task_counts(given) for given in rankings]
    compared = sum(count.compared for count in counts)
    agreement = sum(count.alike for count in counts) / compared if compared else None
    if agreement is not None and agreement >= floor:
        return None
    known = [(task.agreement, task) for task in progress.tasks]
    disputed = sorted(
        ((share, task) for share, task in known if share is not None and share < floor),
        key=lambda entry: (entry[0], entry[1].server_task.id),
    )
    return Disagreement(agreement, floor, sum(count.compared > 0 for count in counts), tuple(t for _, t in disputed))


def whom_to_ask(trouble: Disagreement, progress: Progress, min_lead_time_s: float) -> Iterable[str]:
    """Lines that name the labelers who stand out, and the tasks of the least agreement with who ranked them."""
    labels = [label for task in progress.tasks for label in task.labels]
    for labeler in by_labeler(labels, min_lead_time_s, np.random.default_rng(0)):
        if labeler.suspicions:
            yield f"  ask {labeler.labeler} first: {' and '.join(labeler.suspicions)}"
    for task in trouble.disputed[:NAMED_TASKS]:
        people = ", ".join(sorted(task.labeled_by))
        waits = sorted(set(task.assigned) - task.labeled_by)
        other = f"asked now: {', '.join(waits)}" if waits else "somebody else is asked now"
        yield f"  task {task.server_task.id}: {task.agreement:.0%} alike, ranked by {people}; {other}"

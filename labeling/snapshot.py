"""What Label Studio holds of a batch, as canonical annotations."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from labeling.accounts import is_simulated
from labeling.client import ServerAnnotation, ServerTask, User
from labeling.judgement import SKIPPED, from_result
from pipelines.core.records import Annotation


class Snapshot(NamedTuple):
    """The annotations of the batch's tasks, sorted; and what did not fit."""

    annotations: list[Annotation]
    deleted_tasks: list[str]  # tasks of the batch that the server no longer has
    foreign_tasks: list[int]  # tasks of the project that are not of the batch, by their id on the server


def pseudonym(user: User) -> str:
    """A name for the labeler that is stable on one server and does not show who it is."""
    return "labeler-" + hashlib.sha256(f"{user.id}:{user.email}".encode()).hexdigest()[:12]


def annotation_of(task: ServerTask, given: ServerAnnotation, user: User) -> Annotation:
    """One submission as a record."""
    shown = tuple(task.data["shown_order"])
    judgement = from_result(given.result, shown)
    return Annotation(
        task_id=task.data["task_id"],
        annotation_id=given.id,
        labeler=pseudonym(user),
        simulated=is_simulated(user.email),
        ranking=() if given.was_cancelled else judgement.ranking,
        shown_order=shown,
        flags=(SKIPPED,) if given.was_cancelled else judgement.flags,
        response_flags=judgement.response_flags,
        comment=judgement.comment,
        lead_time_s=round(given.lead_time_s, 3),
        guideline_version=task.data["guideline_version"],
    )


def take(tasks: Iterable[ServerTask], users: Mapping[int, User], task_ids: Iterable[str]) -> Snapshot:
    """Every annotation of the batch `task_ids`, by task id and annotation id. A deleted user keeps a pseudonym."""
    wanted = set(task_ids)
    seen: set[str] = set()
    annotations: list[Annotation] = []
    foreign: list[int] = []
    for task in tasks:
        task_id = task.data.get("task_id")
        if task_id not in wanted:
            foreign.append(task.id)
            continue
        seen.add(task_id)
        for given in task.annotations:
            user = users.get(given.completed_by, User(given.completed_by, "deleted"))
            annotations.append(annotation_of(task, given, user))
    annotations.sort(key=lambda annotation: (annotation.task_id, annotation.annotation_id))
    return Snapshot(annotations, sorted(wanted - seen), foreign)

"""Puts the sampled batch before its labelers in Label Studio.

In: artifacts/sample_completions (the batch), labeling/label_config.xml, labeling/guidelines.md, and a server in
LABEL_STUDIO_URL. Out: a project with one task per prompt, and `.run/push_tasks.json`: where it is, when it was first
pushed, and who is asked about what. Pushing again adds what is missing and changes nothing else.
"""

import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from labeling.accounts import FILE_VARIABLE, read_accounts
from labeling.assignment import Assignment, plan
from labeling.backup import TOKEN_HEADER, TOKEN_VARIABLE, URL_VARIABLE
from labeling.client import LabelStudio, Project, ServerTask
from labeling.project import Batch, ensure, only_one, task_data
from pipelines.core import artifacts
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_json, read_rows, write_json
from pipelines.core.records import LabelTask
from pipelines.core.sections.labeling import Labeling
from pipelines.core.stage import open_stage

WEBHOOK_ACTIONS = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED")
UPDATE_THREADS = 4  # updates at once; on SQLite more only queue


def known_labelers(labeling: Labeling) -> list[str] | None:
    """The simulated labelers' e-mail addresses; None for people, who come when they like."""
    if labeling.labelers != "simulated":
        return None
    if not os.environ.get(FILE_VARIABLE):
        raise BadInput(f"{FILE_VARIABLE} is not set; `make up` makes the accounts of simulated labelers and sets it")
    accounts = read_accounts(Path(os.environ[FILE_VARIABLE]))
    if len(accounts) < labeling.simulated.count:
        raise BadInput(
            f"labeling.simulated.count is {labeling.simulated.count} and {os.environ[FILE_VARIABLE]} has "
            f"{len(accounts)} accounts; add some with python -m labeling.accounts"
        )
    return [account.email for account in accounts[: labeling.simulated.count]]


def of_batch(tasks: Iterable[ServerTask]) -> tuple[dict[str, ServerTask], list[ServerTask]]:
    """The tasks of a project by their id in the batch, and those that repeat another and bear no label.

    An import whose answer was lost may still be at work when the push is tried again.
    """
    there: dict[str, ServerTask] = {}
    repeated = []
    for task in sorted(tasks, key=lambda task: (not task.annotations, task.id)):
        task_id = str(task.data.get("task_id"))
        if task_id not in there:
            there[task_id] = task
        elif not task.annotations:
            repeated.append(task)
    return there, repeated


def push(client: LabelStudio, batch: Batch, tasks: list[LabelTask], assignments: list[Assignment]) -> Project:
    """Make the server hold every task of the batch once, each open to as many people as it needs.

    The server gives an imported task the overlap of its project, and takes a tenth of a second to change one task. So
    what one person ranks is imported under an overlap of 1, then the project's is raised for the others. The server
    leaves it at 1 for what is there as long as some task has more: the first of the others, which is changed alone.
    """
    project = ensure(client, batch)
    of_task = {assignment.task_id: assignment for assignment in assignments}
    wanted = {task.id: task_data(task, batch, of_task[task.id]) for task in tasks}
    there, _ = of_batch(client.tasks(project.id))
    missing = [data for task_id, data in wanted.items() if task_id not in there]
    several = [data for data in missing if data["needed"] > 1]
    later = several[1:] if project.settings["maximum_annotations"] == 1 else []
    kept_back = {data["task_id"] for data in later}
    client.import_tasks(project.id, [data for data in missing if data["task_id"] not in kept_back])
    if missing:
        there, repeated = of_batch(client.tasks(project.id))
        for task in repeated:
            client.delete_task(task.id)
    fresh = {data["task_id"] for data in missing}
    changes = {
        there[task_id].id: changes_of(there[task_id], data, task_id in fresh)
        for task_id, data in wanted.items()
        if task_id not in kept_back
    }
    with ThreadPoolExecutor(UPDATE_THREADS) as threads:
        list(threads.map(lambda item: client.update_task(*item), ((key, new) for key, new in changes.items() if new)))
    if later:
        client.update_project(project, {"maximum_annotations": max(data["needed"] for data in later)})
        client.import_tasks(project.id, later)
    print(
        f"{len(missing)} tasks added, {len(tasks) - len(missing)} were there: {client.url}/projects/{project.id}/data"
    )
    return project


def changes_of(task: ServerTask, wanted: dict[str, Any], fresh: bool) -> dict[str, Any]:
    """What the server must change of `task`: more people, or for one that waits, the guidelines of today.

    A labelled task keeps the guideline version that it was labelled under, and an overlap is never lowered unless the
    task is `fresh`: then it only has the project's.
    """
    changes: dict[str, Any] = {}
    if task.overlap < wanted["needed"] or (fresh and task.overlap > wanted["needed"]):
        people = {annotation.completed_by for annotation in task.annotations}
        changes |= {"overlap": wanted["needed"], "is_labeled": len(people) >= wanted["needed"]}
    if not task.annotations and task.data["guideline_version"] != wanted["guideline_version"]:
        changes["data"] = task.data | {"guideline_version": wanted["guideline_version"]}
    return changes


def receipt(client: LabelStudio, project: Project, batch: Batch, assignments: list[Assignment]) -> dict[str, Any]:
    """`.run/push_tasks.json`; the deadline counts from the first push of this run."""
    earlier = read_json(artifacts.PUSHED) if artifacts.PUSHED.exists() else {}
    same = earlier.get("batch_id") == batch.id and earlier.get("labelers") == batch.labelers
    return {
        "batch_id": batch.id,
        "labelers": batch.labelers,
        "project_id": project.id,
        "url": f"{client.url}/projects/{project.id}/data",
        "pushed_at": earlier["pushed_at"] if same else time.time(),
        "tasks": [
            {"task_id": entry.task_id, "needed": entry.needed, "assigned": list(entry.assigned)}
            for entry in assignments
        ],
    }


def main() -> None:
    with open_stage("push_tasks") as stage, LabelStudio.from_environment() as client:
        labeling = stage.params.labeling
        batch = Batch.read(labeling.labelers)
        tasks = [task for task in map(LabelTask.from_row, read_rows(artifacts.LABEL_BATCH)) if task.asked]
        assignments = plan(
            [task.id for task in tasks], labeling.overlap_share, labeling.overlap_labelers, known_labelers(labeling)
        )
        with only_one():
            project = push(client, batch, tasks, assignments)
        if os.environ.get(URL_VARIABLE) and batch.labelers == "human":
            headers = {TOKEN_HEADER: os.environ.get(TOKEN_VARIABLE, "")}
            client.ensure_webhook(project.id, os.environ[URL_VARIABLE], headers, WEBHOOK_ACTIONS)
        write_json(artifacts.PUSHED, receipt(client, project, batch, assignments))
        needed = sum(assignment.needed for assignment in assignments)
        print(f"{len(tasks)} tasks, {needed} labels asked of {labeling.labelers} labelers")
        stage.tracker.log_metrics({"tasks": len(tasks), "labels_needed": needed})


if __name__ == "__main__":
    main()

"""Says whether a pushed batch has its labels: `python -m labeling.wait --once`.

In: `.run/push_tasks.json`, artifacts/sample_completions, the server in LABEL_STUDIO_URL. Prints done / needed, whole
and per labeler. Exit code 0: enough labels. 75: not yet, look again later. 65: the deadline has passed with fewer than
`labeling.min_complete_share`. Simulated labelers do their share first. It runs every few seconds for as long as people
need, so it opens no MLflow run and imports little.
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labeling.accounts import FILE_VARIABLE, read_accounts
from labeling.client import LabelStudio, LabelStudioDown, ServerTask, User
from labeling.judgement import unlabeled_reason
from labeling.project import only_one
from labeling.simulated import label
from labeling.snapshot import annotation_of
from pipelines.core import artifacts
from pipelines.core.config import Params, load_params
from pipelines.core.errors import BadInput, ExitCode
from pipelines.core.jsonl import read_json, read_rows, write_json
from pipelines.core.records import LabelTask

SECONDS_BETWEEN_LOOKS = {"simulated": 5.0, "human": 60.0}


@dataclass(frozen=True, slots=True)
class TaskProgress:
    """One task of the batch: who gave a label that counts, and which submissions don't and why."""

    server_task: ServerTask
    needed: int
    assigned: tuple[str, ...]  # e-mail addresses; empty: anybody
    labeled_by: frozenset[str]
    not_counted: tuple[tuple[str, str], ...]  # e-mail address, reason

    @property
    def done(self) -> int:
        """Labels that count towards the needed ones."""
        return min(self.needed, len(self.labeled_by))


@dataclass(frozen=True, slots=True)
class Progress:
    """The whole batch."""

    tasks: tuple[TaskProgress, ...]
    deleted: tuple[str, ...]  # tasks of the plan that the server no longer has
    needed: int  # labels, those of deleted tasks included

    @property
    def done(self) -> int:
        return sum(task.done for task in self.tasks)


def measure(
    pushed: Mapping[str, Any], server_tasks: list[ServerTask], users: Mapping[int, User], min_lead_time_s: float
) -> Progress:
    """Compare what was asked for (`.run/push_tasks.json`) with what the server holds."""
    of_id = {task.data.get("task_id"): task for task in server_tasks}
    tasks = []
    for entry in pushed["tasks"]:
        if (task := of_id.get(entry["task_id"])) is None:
            continue
        counted, not_counted = set(), []
        for given in task.annotations:
            user = users.get(given.completed_by, User(given.completed_by, "a deleted user"))
            reason = unlabeled_reason(annotation_of(task, given, user), min_lead_time_s)
            if reason:
                not_counted.append((user.email, reason))
            else:
                counted.add(user.email)
        assigned = tuple(entry["assigned"])
        tasks.append(TaskProgress(task, entry["needed"], assigned, frozenset(counted), tuple(not_counted)))
    deleted = tuple(entry["task_id"] for entry in pushed["tasks"] if entry["task_id"] not in of_id)
    return Progress(tuple(tasks), deleted, sum(entry["needed"] for entry in pushed["tasks"]))


def say(progress: Progress, pushed: Mapping[str, Any]) -> None:
    """Print how far the labelers are."""
    whole = sum(task.done == task.needed for task in progress.tasks)
    print(f"labels: {progress.done} of {progress.needed}, tasks: {whole} of {len(pushed['tasks'])}; {pushed['url']}")
    given = Counter(email for task in progress.tasks for email in task.labeled_by)
    asked = Counter(email for task in progress.tasks for email in task.assigned)
    for email in sorted(given | asked):
        print(f"  {email}: {given[email]}" + (f" of {asked[email]}" if asked else ""))
    for task in progress.tasks:
        for email, reason in task.not_counted:
            print(f"  task {task.server_task.id}: what {email} submitted does not count ({reason}); it can be updated")
    if progress.deleted:
        print(f"  {len(progress.deleted)} tasks were deleted in Label Studio; labeling.push_tasks puts them back")


def overdue(pushed: Mapping[str, Any], params: Params, now: float) -> bool:
    """Whether the deadline, which counts from the first push of this run, has passed at `now` (Unix seconds)."""
    return bool(now - pushed["pushed_at"] >= params.labeling.deadline_hours * 3600)


def verdict(progress: Progress, pushed: Mapping[str, Any], params: Params, now: float) -> ExitCode:
    """Enough labels, or not yet.

    Raises:
        BadInput: the deadline has passed and too few labels are there.
    """
    if progress.done >= progress.needed:
        return ExitCode.OK
    if not overdue(pushed, params, now):
        return ExitCode.NOT_YET
    share = progress.done / progress.needed
    hours, enough = params.labeling.deadline_hours, params.labeling.min_complete_share
    if share >= enough:
        print(f"the deadline of {hours:g} h has passed; {share:.0%} of the labels are enough")
        return ExitCode.OK
    raise BadInput(
        f"{progress.done} of {progress.needed} labels ({share:.0%}): the deadline labeling.deadline_hours={hours:g} "
        f"has passed and labeling.min_complete_share={enough:g} is not reached. Labels stay in {pushed['url']}: "
        "start a new run, with a later deadline or a smaller share, and it goes on from them"
    )


def reopen(client: LabelStudio, progress: Progress) -> None:
    """Give a task whose submission does not count to one more person; Label Studio takes it for finished."""
    for task in progress.tasks:
        if task.done < task.needed and task.server_task.is_labeled:
            room = task.needed + len(task.not_counted)
            client.update_task(task.server_task.id, {"overlap": room, "is_labeled": False})


def let_simulated_labelers_work(client: LabelStudio, progress: Progress, params: Params) -> int:
    """Have the simulated labelers submit what is theirs and open; returns how many annotations they made."""
    if not os.environ.get(FILE_VARIABLE):
        raise BadInput(f"{FILE_VARIABLE} is not set; `make up` makes the accounts of simulated labelers and sets it")
    accounts = read_accounts(Path(os.environ[FILE_VARIABLE]))
    todo: dict[str, list[ServerTask]] = {}
    for task in progress.tasks:
        if task.done == task.needed:
            continue
        gave = task.labeled_by | {email for email, _ in task.not_counted}
        for email in sorted(set(task.assigned) - gave):
            todo.setdefault(email, []).append(task.server_task)
    if lost := sorted(set(todo) - {account.email for account in accounts}):
        raise BadInput(f"{os.environ[FILE_VARIABLE]} has no accounts of {lost}, who have tasks; push the batch again")
    batch = {row["id"]: LabelTask.from_row(row) for row in read_rows(artifacts.LABEL_BATCH)}
    return label(client, accounts, todo, batch, params.seed, params.labeling.simulated.noise)


def look(client: LabelStudio, params: Params, pushed: Mapping[str, Any]) -> ExitCode:
    """One look at the batch."""

    def progress_now() -> Progress:
        tasks = list(client.tasks(pushed["project_id"]))
        return measure(pushed, tasks, client.users(), params.prepare_preferences.min_lead_time_s)

    if pushed["labelers"] == "simulated":
        with only_one():
            progress = progress_now()
            if let_simulated_labelers_work(client, progress, params):
                progress = progress_now()
    else:
        progress = progress_now()
        reopen(client, progress)
    say(progress, pushed)
    return verdict(progress, pushed, params, time.time())


def run() -> ExitCode:
    """One look, with its errors said; until the deadline, a server that does not answer is looked at again later."""
    failure = artifacts.FAILURES / "wait.json"
    failure.unlink(missing_ok=True)
    try:
        params = load_params(Path("params.yaml"))
        pushed = read_json(artifacts.PUSHED)
        try:
            with LabelStudio.from_environment() as client:
                return look(client, params, pushed)
        except LabelStudioDown as error:
            if overdue(pushed, params, time.time()):
                raise BadInput(f"{error}; and the deadline, labeling.deadline_hours, has passed") from error
            print(f"wait: {error}", file=sys.stderr)
            return ExitCode.NOT_YET
    except BadInput as error:
        write_json(failure, {"stage": "wait", "error": str(error)})
        print(f"wait: {error}", file=sys.stderr)
        return ExitCode.BAD_INPUT


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m labeling.wait", description=__doc__)
    parser.add_argument("--once", action="store_true", help="look once instead of until there are enough labels")
    once = parser.parse_args().once
    while (code := run()) is ExitCode.NOT_YET and not once:
        time.sleep(SECONDS_BETWEEN_LOOKS[load_params(Path("params.yaml")).labeling.labelers])
    sys.exit(code)


if __name__ == "__main__":
    main()

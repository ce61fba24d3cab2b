"""Says whether a pushed batch has its labels, and whether they agree: `python -m labeling.wait --once`.

In: `.run/push_tasks.json`, artifacts/sample_completions, the server in LABEL_STUDIO_URL. Prints done / needed, whole
and per labeler. Where the labelers agree on less than `prepare_preferences.min_agreement`, one more label is asked for
on each task under it, and the round waits until they agree. Exit code 0: enough labels. 75: not yet, look again later;
`.run/wait.json` says why. 65: the deadline has passed with fewer than `labeling.min_complete_share`, or without
agreement. Simulated labelers do their share first. It runs every few seconds for as long as people need, so it opens
no MLflow run and imports little.
"""

import argparse
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labeling.accounts import FILE_VARIABLE, read_accounts
from labeling.backup import deleted, how_to_restore, keep, path_of, rows_of
from labeling.client import LabelStudio, LabelStudioDown, ServerTask
from labeling.progress import Disagreement, Progress, disagreement, measure, report, whom_to_ask
from labeling.project import only_one
from labeling.push_tasks import known_labelers
from labeling.simulated import label
from pipelines.core import artifacts
from pipelines.core.config import Params, load_params
from pipelines.core.errors import BadInput, ExitCode
from pipelines.core.jsonl import read_json, read_rows, write_json
from pipelines.core.records import LabelTask

SECONDS_BETWEEN_LOOKS = {"simulated": 5.0, "human": 60.0}


def overdue(pushed: Mapping[str, Any], params: Params, now: float) -> bool:
    """Whether the deadline, which counts from the first push of this run, has passed at `now` (Unix seconds)."""
    return bool(now - pushed["pushed_at"] >= params.labeling.deadline_hours * 3600)


def enough_labels(progress: Progress, pushed: Mapping[str, Any], params: Params, now: float) -> bool:
    """Whether there are as many labels as were asked for, or at the deadline as many as must be.

    Raises:
        BadInput: the deadline has passed and too few labels are there.
    """
    if progress.done >= progress.needed:
        return True
    if not overdue(pushed, params, now):
        return False
    share = progress.done / progress.needed
    hours, enough = params.labeling.deadline_hours, params.labeling.min_complete_share
    if share >= enough:
        print(f"the deadline of {hours:g} h has passed; {share:.0%} of the labels are enough")
        return True
    raise BadInput(
        f"{progress.done} of {progress.needed} labels ({share:.0%}): the deadline labeling.deadline_hours={hours:g} "
        f"has passed and labeling.min_complete_share={enough:g} is not reached. Labels stay in {pushed['url']}: "
        "start a new run, with a later deadline or a smaller share, and it goes on from them"
    )


def ask_for_more(trouble: Disagreement, pushed: Mapping[str, Any], labelers: list[str] | None) -> dict[str, Any]:
    """`.run/push_tasks.json` with one more label asked for on each disputed task.

    `labelers` are the simulated ones; None for people, of whom anybody who has not ranked a task may take it.

    Raises:
        BadInput: every simulated labeler has ranked every disputed task.
    """
    disputed = {task.server_task.data["task_id"]: task for task in trouble.disputed}
    entries, asked = [], 0
    for entry in pushed["tasks"]:
        changed = dict(entry)
        if task := disputed.get(entry["task_id"]):
            left = sorted(set(labelers or ()) - task.labeled_by - set(task.assigned))
            if labelers is None or left:
                changed["more"] = entry.get("more", 0) + 1
                changed["assigned"] = [*entry["assigned"], *left[:1]]
                asked += 1
        entries.append(changed)
    if not asked:
        raise BadInput(f"{trouble}, and every simulated labeler has ranked them; lower labeling.simulated.noise")
    return dict(pushed) | {"tasks": entries}


def verdict(progress: Progress, pushed: Mapping[str, Any], params: Params, now: float) -> Disagreement | ExitCode:
    """Enough labels that agree, not yet enough, or what they disagree on.

    Raises:
        BadInput: the deadline has passed and too few labels are there, or they disagree, or nothing says whether.
    """
    if not enough_labels(progress, pushed, params, now):
        return ExitCode.NOT_YET
    trouble = disagreement(progress, params.prepare_preferences.min_agreement)
    if trouble is None:
        return ExitCode.OK
    if trouble.agreement is None:
        raise BadInput(str(trouble))
    if overdue(pushed, params, now):
        tasks = ", ".join(str(task.server_task.id) for task in trouble.disputed)
        raise BadInput(
            f"{trouble}, and the deadline labeling.deadline_hours={params.labeling.deadline_hours:g} has passed. Talk "
            f"about the tasks {tasks} of {pushed['url']}, make the guidelines clearer, let people update their "
            "rankings, and start a new run: it goes on from them"
        )
    return trouble


def reopen(client: LabelStudio, progress: Progress) -> None:
    """Give a task that Label Studio takes for finished to one more person: what was submitted is not enough."""
    for task in progress.tasks:
        if task.open and task.server_task.is_labeled:
            room = task.needed + task.more + len(task.not_counted)
            client.update_task(task.server_task.id, {"overlap": room, "is_labeled": False})


def let_simulated_labelers_work(client: LabelStudio, progress: Progress, params: Params) -> int:
    """Have the simulated labelers submit what is theirs and open; returns how many annotations they made."""
    if not os.environ.get(FILE_VARIABLE):
        raise BadInput(f"{FILE_VARIABLE} is not set; `make up` makes the accounts of simulated labelers and sets it")
    accounts = read_accounts(Path(os.environ[FILE_VARIABLE]))
    todo: dict[str, list[ServerTask]] = {}
    for task in progress.tasks:
        if not task.open:
            continue
        gave = task.labeled_by | {email for email, _ in task.not_counted}
        for email in sorted(set(task.assigned) - gave):
            todo.setdefault(email, []).append(task.server_task)
    if lost := sorted(set(todo) - {account.email for account in accounts}):
        raise BadInput(f"{os.environ[FILE_VARIABLE]} has no accounts of {lost}, who have tasks; push the batch again")
    batch = {row["id"]: LabelTask.from_row(row) for row in read_rows(artifacts.LABEL_BATCH)}
    return label(client, accounts, todo, batch, params.seed, params.labeling.simulated.noise)


def look(client: LabelStudio, params: Params, pushed: Mapping[str, Any]) -> ExitCode:
    """One look at the batch; leaves what the run waits for in `.run/wait.json`."""

    lost: list[int] = []

    def progress_now(asked: Mapping[str, Any]) -> Progress:
        tasks = list(client.tasks(asked["project_id"]))
        if asked["labelers"] == "human":
            backup = path_of(asked["batch_id"])
            keep(backup, rows_of(tasks))
            lost[:] = deleted(backup, tasks)
        return measure(asked["tasks"], tasks, client.users(), params.prepare_preferences.min_lead_time_s)

    if pushed["labelers"] == "simulated":
        with only_one():
            progress = progress_now(pushed)
            if let_simulated_labelers_work(client, progress, params):
                progress = progress_now(pushed)
    else:
        progress = progress_now(pushed)
        reopen(client, progress)
    said = list(report(progress, pushed["url"]))
    if lost:
        said.append(f"  {how_to_restore(lost, path_of(pushed['batch_id']))}")
    print("\n".join(said))
    found = verdict(progress, pushed, params, time.time())
    if isinstance(found, Disagreement):
        if not any(task.open for task in progress.tasks):
            pushed = ask_for_more(found, pushed, known_labelers(params.labeling))
            write_json(artifacts.PUSHED, pushed)
            progress = progress_now(pushed)
            reopen(client, progress)
            found = disagreement(progress, found.floor) or found
        reasons = [str(found), *whom_to_ask(found, progress, params.prepare_preferences.min_lead_time_s)]
        print("\n".join(reasons))
        said += reasons
    write_json(artifacts.WAITING, {"progress": progress.to_row(), "says": said})
    return ExitCode.NOT_YET if isinstance(found, Disagreement) else found


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

"""Puts prompts before people who write the answers, and each answer before a second person who accepts or returns it.

    python -m labeling.push_demonstrations --round spring --prompts prompts.jsonl

Goes on until every prompt has an accepted answer; every minute it hands new answers to be checked and returned ones to
be corrected. Started again it goes on from what the server holds; `--once` looks once and exits with 75 while answers
are missing. `pull_demonstrations.round=spring` then brings them into a run.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from labeling.client import LabelStudio, LabelStudioDown
from labeling.demonstrations import Given, answers, check_task, ensure, write_task
from labeling.project import only_one
from pipelines.core.conversations import read_conversations
from pipelines.core.errors import BadInput, ExitCode
from pipelines.core.records import Conversation, content_id

SECONDS_BETWEEN_LOOKS = 60.0


def returned(given: Sequence[Given]) -> dict[str, Given]:
    """By prompt, the answer that was returned and is to be corrected: of the prompts whose last attempt ended so."""
    last: dict[str, list[Given]] = {}
    for one in sorted(given, key=lambda one: one.task.data["attempt"]):
        key = content_id(one.task.data["prompt"]["messages"])
        if key in last and last[key][0].task.data["attempt"] < one.task.data["attempt"]:
            last[key] = []
        last.setdefault(key, []).append(one)
    return {key: ones[-1] for key, ones in last.items() if all(one.decision.verdict == "returned" for one in ones)}


def push(client: LabelStudio, name: str, prompts: Sequence[Conversation]) -> list[Given]:
    """Make the server hold every prompt, the check of every answer, and a further try of each that was returned."""
    projects = ensure(client, name)
    write_tasks = list(client.tasks(projects.write.id))
    given = answers(write_tasks, client.tasks(projects.check.id), client.users())

    wanted = [write_task(prompt) for prompt in prompts]
    for one in returned(given).values():
        prompt = Conversation.from_row(one.task.data["prompt"])
        wanted.append(write_task(prompt, one.task.data["attempt"] + 1, one.text, one.decision.reason))
    there = {task.data.get("task_id") for task in write_tasks}
    client.import_tasks(projects.write.id, [data for data in wanted if data["task_id"] not in there])

    unchecked = [one for one in given if one.check is None]
    client.import_answers(
        projects.check.id, [check_task(one) for one in unchecked], [one.annotation.completed_by for one in unchecked]
    )
    answered = {one.task.id for one in given}
    for task in write_tasks:  # who had no answer leaves the prompt to somebody else
        if task.is_labeled and task.id not in answered:
            client.update_task(task.id, {"overlap": len(task.annotations) + 1, "is_labeled": False})
    for one in given:  # a verdict of the author, or of somebody who is no checker, decides nothing
        if one.check and one.decision.verdict == "open" and one.check.is_labeled:
            room = {"overlap": len(one.check.annotations) + 1, "is_labeled": False}
            client.update_task(one.check.id, room)
    return given


def say(client: LabelStudio, name: str, prompts: Sequence[Conversation], given: Sequence[Given]) -> bool:
    """Print how far the round is; whether every prompt has an accepted answer."""
    done = {content_id(one.task.data["prompt"]["messages"]) for one in given if one.decision.verdict == "accepted"}
    accepted = sum(content_id(prompt.chat) in done for prompt in prompts)
    verdicts = Counter(one.decision.verdict for one in given)
    waiting = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items())) or "none"
    print(f"{name}: {accepted} of {len(prompts)} prompts have an accepted answer; answers: {waiting}; {client.url}")
    return accepted == len(prompts)


def look(name: str, prompts: Sequence[Conversation]) -> ExitCode:
    """One look at the round; a server that does not answer is looked at again later."""
    try:
        with LabelStudio.from_environment() as client, only_one():
            complete = say(client, name, prompts, push(client, name, prompts))
    except LabelStudioDown as error:
        print(error, file=sys.stderr)
        return ExitCode.NOT_YET
    return ExitCode.OK if complete else ExitCode.NOT_YET


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m labeling.push_demonstrations", description=__doc__)
    parser.add_argument("--round", required=True, help="a name for this round of demonstrations")
    parser.add_argument("--prompts", type=Path, required=True, help="JSON Lines, as pipelines/datasets/prompts.jsonl")
    parser.add_argument("--once", action="store_true", help="look once instead of until all answers are accepted")
    arguments = parser.parse_args()
    try:
        prompts = read_conversations(arguments.prompts, "user")
        while (code := look(arguments.round, prompts)) is ExitCode.NOT_YET and not arguments.once:
            time.sleep(SECONDS_BETWEEN_LOOKS)
    except BadInput as error:
        print(error, file=sys.stderr)
        sys.exit(ExitCode.BAD_INPUT)
    sys.exit(code)


if __name__ == "__main__":
    main()

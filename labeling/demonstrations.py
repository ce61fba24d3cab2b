"""A round of answers that people write and other people check: its two projects, their tasks, what came of them.

A prompt is a task of the writing project. A submitted answer becomes a task of the checking project that counts as
already done by its author, so that Label Studio's label stream gives it to somebody else. A returned answer comes back
as the draft of one more task of the writing project, with the reason.
"""

import hashlib
import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from labeling.accounts import checkers
from labeling.client import LabelStudio, Project, ServerAnnotation, ServerTask, User
from labeling.project import conversation_html, instructions, styled
from labeling.snapshot import pseudonym
from pipelines.core.errors import BadInput
from pipelines.core.records import Conversation, WrittenAnswer, content_id

WRITE_CONFIG = Path("labeling/demonstration_config.xml")
CHECK_CONFIG = Path("labeling/demonstration_check_config.xml")
GUIDELINES = Path("labeling/demonstration_guidelines.md")

Verdict = Literal["open", "accepted", "returned"]
VERDICTS: dict[str, Verdict] = {"accept": "accepted", "return": "returned"}  # as the checking page names them


class Round(NamedTuple):
    """The two projects of a round on the server."""

    write: Project
    check: Project


class Decision(NamedTuple):
    """What was said of an answer; `checker` is an account, 0 while the verdict is open."""

    verdict: Verdict
    checker: int
    reason: str


@dataclass(frozen=True, slots=True)
class Given:
    """One answer as its author submitted it, and its check as far as there is one."""

    task: ServerTask  # of the writing project
    annotation: ServerAnnotation
    text: str
    check: ServerTask | None
    decision: Decision


def titles(name: str) -> tuple[str, str]:
    """What the two projects of round `name` are called.

    Raises:
        BadInput: Label Studio could not call them so.
    """
    if not re.fullmatch(r"[\w .-]{1,30}", name):
        raise BadInput(f"{name!r} is no name for a round; take 1 to 30 letters, digits, spaces, dots or hyphens")
    return f"Write answers {name}", f"Check answers {name}"


def guideline_version() -> str:
    """The version of what writers and checkers read, as batches of rankings count it."""
    return hashlib.sha256(GUIDELINES.read_bytes()).hexdigest()[:12]


def _settings(title: str, page: Path, people: int) -> dict[str, Any]:
    return {
        "title": title,
        "description": f"guidelines {guideline_version()}",
        "label_config": styled(page.read_text(encoding="utf-8")),
        "expert_instruction": instructions(GUIDELINES.read_text(encoding="utf-8")),
        "show_instruction": True,
        "show_skip_button": False,
        # To Label Studio a typed answer is nothing until it is submitted, and nothing can't be submitted otherwise.
        "enable_empty_annotation": page == WRITE_CONFIG,
        "sampling": "Sequential sampling",
        "maximum_annotations": people,
    }


def ensure(client: LabelStudio, name: str) -> Round:
    """The projects of round `name`, made or brought up to date."""

    def one(settings: dict[str, Any]) -> Project:
        found = client.find_project(settings["title"])
        return client.update_project(found, settings) if found else client.create_project(settings)

    write, check = titles(name)
    return Round(one(_settings(write, WRITE_CONFIG, 1)), one(_settings(check, CHECK_CONFIG, 2)))


def find(client: LabelStudio, name: str) -> Round:
    """The projects of round `name`.

    Raises:
        BadInput: there are none.
    """
    write, check = (client.find_project(title) for title in titles(name))
    if not write or not check:
        raise BadInput(
            f"{client.url} has no round {name!r} of demonstrations; push it first (labeling.push_demonstrations), or "
            "set pull_demonstrations.round=null"
        )
    return Round(write, check)


def write_task(prompt: Conversation, attempt: int = 1, draft: str = "", reason: str = "") -> dict[str, Any]:
    """What Label Studio stores of a prompt that waits for an answer."""
    returned = f'<div class="note" dir="auto"><b>Returned: what must change</b>{html.escape(reason)}</div>'
    return {
        "task_id": content_id([prompt.chat, attempt]),
        "prompt": prompt.to_row(),
        "attempt": attempt,
        "guideline_version": guideline_version(),
        "conversation_html": conversation_html(prompt),
        "draft": draft,
        "returned_html": returned if attempt > 1 else "<span></span>",
    }


def check_task_id(annotation_id: int, text: str) -> str:
    """The check of one answer; an answer that its author changed later is checked again."""
    return content_id([annotation_id, text])


def check_task(given: Given) -> dict[str, Any]:
    """What Label Studio stores of an answer that waits for a second person."""
    prompt = Conversation.from_row(given.task.data["prompt"])
    answer = f'<div class="turn assistant answer" dir="auto"><b>The answer to check</b>{html.escape(given.text)}</div>'
    return {
        "task_id": check_task_id(given.annotation.id, given.text),
        "conversation_html": conversation_html(prompt) + answer,
    }


def _value(annotation: ServerAnnotation, control: str) -> dict[str, Any]:
    found = (item["value"] for item in annotation.result if item.get("from_name") == control)
    return next(found, {})


def _text(annotation: ServerAnnotation, control: str) -> str:
    return "\n".join(_value(annotation, control).get("text", [])).strip()


def _decision(check: ServerTask | None, author: int, deciders: set[int] | None) -> Decision:
    """The last verdict of one of `deciders` (accounts; None is anybody) who is not the author."""
    found = Decision("open", 0, "")
    for given in check.annotations if check else ():
        chosen = _value(given, "verdict").get("choices", [])
        may = given.completed_by != author and (deciders is None or given.completed_by in deciders)
        if may and chosen and chosen[0] in VERDICTS:
            found = Decision(VERDICTS[chosen[0]], given.completed_by, _text(given, "reason"))
    return found


def answers(
    write_tasks: Iterable[ServerTask], check_tasks: Iterable[ServerTask], users: Mapping[int, User]
) -> list[Given]:
    """Every answer that was submitted, with its check; whose verdicts count is in `labeling/accounts.py`."""
    emails = checkers()
    deciders = None if emails is None else {account for account, user in users.items() if user.email in emails}
    checks = {task.data.get("task_id"): task for task in check_tasks}
    found = []
    for task in write_tasks:
        for annotation in task.annotations:
            if annotation.was_cancelled or not (text := _text(annotation, "answer")):
                continue
            check = checks.get(check_task_id(annotation.id, text))
            found.append(Given(task, annotation, text, check, _decision(check, annotation.completed_by, deciders)))
    return found


def record(given: Given, users: Mapping[int, User]) -> WrittenAnswer:
    """`given` as the snapshot keeps it; a deleted user keeps a pseudonym."""

    def name(account: int) -> str:
        return pseudonym(users.get(account, User(account, "deleted")))

    return WrittenAnswer(
        annotation_id=given.annotation.id,
        prompt=Conversation.from_row(given.task.data["prompt"]),
        answer=given.text,
        attempt=given.task.data["attempt"],
        verdict=given.decision.verdict,
        author=name(given.annotation.completed_by),
        checker=name(given.decision.checker) if given.decision.checker else "",
        reason=given.decision.reason,
        lead_time_s=round(given.annotation.lead_time_s, 3),
        guideline_version=given.task.data["guideline_version"],
    )

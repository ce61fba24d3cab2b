"""The Label Studio project of one batch: its page, its instructions, and its tasks.

People and simulated labelers get projects of their own, so that a batch that was ranked by rule is still put before
people when a run asks for them.
"""

import fcntl
import hashlib
import html
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from labeling.assignment import Assignment
from labeling.client import LabelStudio, Project
from labeling.judgement import letters
from pipelines.core import artifacts
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_json
from pipelines.core.records import Conversation, LabelTask

LABEL_CONFIG = Path("labeling/label_config.xml")
GUIDELINES = Path("labeling/guidelines.md")
LOOKS = Path("labeling/page.css")


@dataclass(frozen=True, slots=True)
class Batch:
    """What was sampled to be ranked, and by whom it is to be."""

    id: str
    guideline_version: str
    label_config_sha: str
    labelers: str  # simulated or human

    @classmethod
    def read(cls, labelers: str) -> Self:
        """The batch that `sample_completions` wrote."""
        manifest = read_json(artifacts.LABEL_BATCH_MANIFEST)
        return cls(manifest["batch_id"], str(manifest["guideline_version"]), manifest["label_config_sha"], labelers)

    @property
    def title(self) -> str:
        """The name of the project."""
        return f"Rank responses {self.id[:8]}" + (" (simulated)" if self.labelers == "simulated" else "")


def instructions(guidelines: str) -> str:
    """The guidelines as the HTML that Label Studio shows before the first task; the page's Style block styles them."""
    from markdown_it import MarkdownIt  # only a push needs it

    return str(MarkdownIt("commonmark", {"html": False}).enable("table").render(guidelines))


def styled(page: str) -> str:
    """A label config whose empty Style element holds the looks that all pages share."""
    return page.replace("<Style/>", f"<Style>\n{LOOKS.read_text(encoding='utf-8')}</Style>")


def settings_of(batch: Batch) -> dict[str, Any]:
    """The fields of the project of `batch`.

    Raises:
        BadInput: the page is not the one that the batch was made for.
    """
    page = LABEL_CONFIG.read_bytes()
    if hashlib.sha256(page).hexdigest() != batch.label_config_sha:
        raise BadInput(f"batch {batch.id} was made for another {LABEL_CONFIG}; run sample_completions again")
    return {
        "title": batch.title,
        "description": f"batch {batch.id}, guidelines {batch.guideline_version}, {batch.labelers} labelers",
        "label_config": styled(page.decode()),
        "expert_instruction": instructions(GUIDELINES.read_text(encoding="utf-8")),
        "show_instruction": True,
        "show_skip_button": False,  # "I cannot judge this" says why
        "enable_empty_annotation": False,
        "sampling": "Sequential sampling",  # the batch's order is the order of asking
        "show_overlap_first": True,  # tasks for several people, so that one soon sees how far they agree
    }


def find(client: LabelStudio, batch: Batch) -> Project | None:
    """The project of `batch`, if it was pushed."""
    found = client.find_project(batch.title)
    if found and batch.id not in found.settings["description"]:
        raise BadInput(
            f"project {found.id} of {client.url} is called {batch.title!r} but is not of batch {batch.id}; rename it"
        )
    return found


def ensure(client: LabelStudio, batch: Batch) -> Project:
    """The project of `batch`, made or brought up to date."""
    settings = settings_of(batch)
    found = find(client, batch)
    return client.update_project(found, settings) if found else client.create_project(settings)


def shown_order(task: LabelTask) -> list[str]:
    """The completion ids in the order in which the page first shows them: a shuffle that the task's content fixes."""

    def draw(completion_id: str) -> bytes:
        return hashlib.sha256(f"shown:{task.id}:{completion_id}".encode()).digest()

    return sorted((completion.id for completion in task.completions), key=draw)


def conversation_html(prompt: Conversation) -> str:
    """The turns as chat bubbles, their text escaped, so that markup shows as it was typed."""
    speaker = {"user": "User", "assistant": "Assistant", "system": "Instructions to the assistant"}
    turns = (
        f'<div class="turn {message.role}" dir="auto"><b>{speaker[message.role]}</b>'
        f"{html.escape(message.content)}</div>"
        for message in prompt.messages
    )
    return "".join(turns)


def task_data(task: LabelTask, batch: Batch, assignment: Assignment) -> dict[str, Any]:
    """What Label Studio stores of `task`: the keys that the page shows, and those that the pull reads back."""
    texts = {completion.id: completion.text for completion in task.completions}
    order = shown_order(task)
    letter = letters(order)
    responses = [
        {"id": name, "title": letter[name] + ("" if texts[name].strip() else " (empty)"), "body": texts[name]}
        for name in order
    ]
    return {
        "task_id": task.id,
        "batch_id": batch.id,
        "guideline_version": batch.guideline_version,
        "conversation_html": conversation_html(task.prompt),
        "responses": responses,
        "letters": [{"value": letter[name]} for name in order],
        "shown_order": order,
        "needed": assignment.needed,
        "assigned": list(assignment.assigned),
    }


@contextmanager
def only_one() -> Iterator[None]:
    """Two runs with the same batch take turns: the server would store their tasks and labels twice."""
    folder = Path(os.environ.get("COLLOQUY_HOME", artifacts.RUN))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "label-studio.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

"""Exports rated and flagged answers of the product as a snapshot that people look at in the next label round.

    python -m serving.operations.feedback_export --out FILE

Out: a snapshot in `$COLLOQUY_HOME/feedback` (`pipelines/core/feedback.py`), and in FILE what a run of the DAG
`train_assistant` is started with: profile and overrides of the champion's run, from whose policy the round goes on, and
of the challenger's, if it is another. Thumbs choose what people look at; no stage reads them. Left out are people who
did not consent, what was exported before, and duplicates; personal data is replaced by placeholders. What people
deleted is not in the stores any more. Ends with 99 when nothing is left.

Environment: COLLOQUY_HOME, COLLOQUY_REPO, MLFLOW_TRACKING_URI, MONGODB_URL, SQL_URL.
"""

import argparse
import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipelines.core import config, feedback, registry, tracking
from pipelines.core.config import Params
from pipelines.core.errors import BadInput, ExitCode
from pipelines.core.feedback import RatedAnswer, Signal
from pipelines.core.jsonl import read_json, read_rows, write_json, write_rows
from pipelines.core.records import Conversation, Message, content_id
from pipelines.core.sections.labeling import FeedbackExport
from pipelines.data.dedup import near_repeats, signature
from pipelines.data.pii import redact
from pipelines.data.pii_analyzer import load_finder
from serving.settings import address
from serving.stores import sql
from serving.stores.accounts import Accounts
from serving.stores.documents import DocumentStore, StoredMessage
from serving.stores.mongo import MongoStore

FORMAT = 1
MOST_READ = 10_000  # of each signal, the newest
CATEGORY = SOURCE = "feedback"  # of the prompts


class Candidate(NamedTuple):
    """An answer that people may look at, and its user."""

    rated: RatedAnswer
    user_id: str


class Export(NamedTuple):
    """What goes into a snapshot, and how many answers were left out for which reason."""

    chosen: list[Candidate]
    left_out: Counter[str]


async def signals(documents: DocumentStore, since: datetime) -> AsyncIterator[tuple[str, Signal]]:
    """Message ids since `since` with why they should be looked at: bad ones first, then flagged, then good ones."""
    for rating in ("down", "flagged", "up"):
        if rating == "flagged":
            found = [(each.message_id, each.timestamp) for each in await documents.flagged(MOST_READ)]
        else:
            judged = await documents.judged(rating, MOST_READ)  # type: ignore[arg-type]
            found = [(each.message_id, each.timestamp) for each in judged]
        for message_id, at in found:
            if at >= since:
                yield message_id, rating  # type: ignore[misc]


def prompt_of(turns: Sequence[StoredMessage], license: str) -> Conversation | None:
    """The turns before an answer as a prompt, or None where they are no conversation that ends with a question."""
    messages = tuple(Message(turn.role, turn.content) for turn in turns if turn.content.strip())
    roles = [message.role for message in messages]
    if not roles or roles != [("user", "assistant")[place % 2] for place in range(len(roles))] or roles[-1] != "user":
        return None
    return Conversation("", messages, CATEGORY, SOURCE, license)


async def read(
    documents: DocumentStore, accounts: Accounts, rule: FeedbackExport, temperature: float, now: datetime
) -> tuple[list[Candidate], Counter[str]]:
    """Every rated or flagged answer of people who consent, and how many were left out for which reason."""
    found: dict[str, Candidate] = {}
    left_out: Counter[str] = Counter()
    async for message_id, signal in signals(documents, now - timedelta(days=rule.days)):
        answer = await documents.answer(message_id)
        if message_id in found or answer is None:
            continue
        if rule.consent == "shared":
            user = await accounts.by_id(answer.user_id)
            if user is None or not user.preferences.get("share_conversations", False):
                left_out["without consent"] += 1
                continue
        turns = await documents.messages(answer.user_id, answer.conversation_id)
        prompt = prompt_of([turn for turn in turns if turn.position < answer.position], rule.license)
        if prompt is None or not answer.content.strip():
            left_out["no question with an answer"] += 1
            continue
        rated = RatedAnswer(prompt, answer.content.strip(), temperature, signal)
        found[message_id] = Candidate(rated, answer.user_id)
    return list(found.values()), left_out


def without_pii(rated: RatedAnswer, clean: Callable[[str], str]) -> RatedAnswer:
    """The same with placeholders for personal data; the prompt's id is that of its cleaned text."""
    messages = tuple(Message(message.role, clean(message.content)) for message in rated.prompt.messages)
    prompt = replace(rated.prompt, messages=messages)
    return replace(rated, prompt=replace(prompt, id=content_id(prompt.chat)), answer=clean(rated.answer))


def without_repeats(candidates: Sequence[Candidate], similarity: float) -> list[Candidate]:
    """The first of each group of prompts that say nearly the same."""
    texts = ["\n".join(message.content for message in each.rated.prompt.messages) for each in candidates]
    if not texts:
        return []
    repeats = near_repeats([np.stack([signature(text, seed=0) for text in texts])], similarity)
    return [each for each, repeated in zip(candidates, repeats.tolist(), strict=True) if not repeated]


def choose(
    candidates: Sequence[Candidate], clean: Callable[[str], str], exported: set[str], rule: FeedbackExport
) -> Export:
    """What people shall look at; `exported` are the ids of prompts that they were given before."""
    cleaned = [each._replace(rated=without_pii(each.rated, clean)) for each in candidates]
    new = [each for each in cleaned if each.rated.prompt.id not in exported]
    different = without_repeats(new, rule.near_duplicate_similarity)
    chosen = different[: rule.max_answers]
    left_out = Counter(
        {
            "exported before": len(cleaned) - len(new),
            "duplicates": len(new) - len(different),
            "beyond max_answers": len(different) - len(chosen),
        }
    )
    return Export(chosen, left_out)


def cleaner(kinds: Sequence[str]) -> Callable[[str], str]:
    """What replaces personal data of `kinds` by placeholders."""
    find = load_finder(kinds)
    return lambda text: redact(text, find(text))


def exported_before(home: Path) -> set[str]:
    """The ids of all prompts in the snapshots under `home`."""
    return {row["id"] for folder in feedback.snapshots(home) for row in read_rows(folder / feedback.OWNERS)}


def write(home: Path, export: Export, rule: FeedbackExport, now: datetime) -> str:
    """Write a snapshot, its manifest last; returns its name."""
    rows = [each.rated.to_row() for each in export.chosen]
    name = f"{now:%Y%m%d}-{content_id(rows)}"
    folder = feedback.folder(home, name)
    write_rows(folder / feedback.ANSWERS, rows)
    owners = ({"id": each.rated.prompt.id, "owner": feedback.owner_of(each.user_id)} for each in export.chosen)
    write_rows(folder / feedback.OWNERS, owners)
    about = {
        "format": FORMAT,
        "exported_at": now.isoformat(timespec="seconds"),
        "answers": len(rows),
        "signals": Counter(each.rated.signal for each in export.chosen),
        "left_out": export.left_out,
        "rule": rule.model_dump(),
    }
    write_json(folder / feedback.MANIFEST, about)
    return name


def expire(home: Path, before: datetime) -> Iterator[str]:
    """Remove the texts of snapshots that are older than `before`; yields their names."""
    for folder in feedback.snapshots(home):
        exported_at = datetime.fromisoformat(read_json(folder / feedback.MANIFEST)["exported_at"])
        if exported_at < before and (folder / feedback.ANSWERS).exists():
            (folder / feedback.ANSWERS).unlink()
            yield folder.name


class Served(NamedTuple):
    """The champion's run and the challenger's, if that is another, and the parameters of the first."""

    run: str
    challenger: str | None
    profile: str
    overrides: list[str]
    params: Params


def served(root: Path) -> Served:
    """What the champion was made with.

    Raises:
        BadInput: nothing was released yet.
    """
    champion, challenger = registry.by_alias("champion"), registry.by_alias("challenger")
    if champion is None:
        raise BadInput("the registry has no champion: release a model first (make demo)")
    tags = tracking.client().get_run(champion.run_id).data.tags
    overrides = json.loads(tags["overrides"])
    params = config.parse(config.resolve(root, tags["profile"], overrides), f"the champion's run {tags['dag_run']}")
    other = challenger.tags["run_id"] if challenger and challenger.number != champion.number else None
    return Served(champion.tags["run_id"], other, tags["profile"], overrides, params)


def next_run(champion: Served, snapshot: str) -> dict[str, Any]:
    """What a run of `train_assistant` is started with to learn from `snapshot`."""
    chosen = {
        "previous_round.run": champion.run,
        "previous_round.challenger": champion.challenger or "null",
        "pull_feedback.snapshot": snapshot,
    }
    kept = [override for override in champion.overrides if override.partition("=")[0] not in chosen]
    return {"profile": champion.profile, "overrides": kept + [f"{name}={value}" for name, value in chosen.items()]}


async def read_stores(rule: FeedbackExport, temperature: float, now: datetime) -> tuple[list[Candidate], Counter[str]]:
    """As `read`, from the stores of MONGODB_URL and SQL_URL."""
    async with AsyncExitStack() as open_stores:
        documents, accounts = MongoStore(address("MONGODB_URL")), Accounts(sql.open_engine(address("SQL_URL")))
        open_stores.push_async_callback(documents.close)
        open_stores.push_async_callback(accounts.close)
        return await read(documents, accounts, rule, temperature, now)


def export_feedback(root: Path, home: Path, out: Path) -> ExitCode:
    """Write the snapshot and how to go on from it."""
    champion, now = served(root), datetime.now(UTC)
    rule = champion.params.feedback_export
    for name in expire(home, now - timedelta(days=rule.retention_days)):
        print(f"the texts of snapshot {name} are removed after {rule.retention_days} days")
    candidates, left_out = asyncio.run(read_stores(rule, champion.params.chat.temperature, now))
    export = choose(candidates, cleaner(rule.pii_types), exported_before(home), rule)
    export.left_out.update(left_out)
    for reason, count in export.left_out.items():
        print(f"  {count} left out: {reason}")
    if not export.chosen:
        print("no answer is left that people could look at")
        return ExitCode.SKIP
    name = write(home, export, rule, now)
    write_json(out, next_run(champion, name))
    print(f"snapshot {name}: {len(export.chosen)} answers")
    return ExitCode.OK


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m serving.operations.feedback_export", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="where to write what the next run is started with")
    try:
        out = parser.parse_args().out
        sys.exit(export_feedback(Path(os.environ["COLLOQUY_REPO"]), Path(os.environ["COLLOQUY_HOME"]), out))
    except BadInput as error:
        print(error, file=sys.stderr)
        sys.exit(ExitCode.BAD_INPUT)


if __name__ == "__main__":
    main()

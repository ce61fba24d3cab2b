"""Watches a candidate that answers a share of new conversations: rolls it back, promotes it, or watches on.

    python -m serving.operations.rollout          what the DAG `watch_production` runs

Each look takes the conversations that came to rest since the last one, as the canary rule wants them
(`serving/operations/canary.py`), from both arms, and does what the rule says. What was counted so far lies in
`$COLLOQUY_HOME/serving/watch.json`. Ends with 99 when there is no candidate.

Environment: COLLOQUY_HOME, COLLOQUY_REPO, MLFLOW_TRACKING_URI, MONGODB_URL.
"""

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from pipelines.core import config, registry, tracking
from pipelines.core.errors import BadInput, ExitCode
from pipelines.core.jsonl import read_json, write_json
from pipelines.core.sections.serving import Canary
from serving import arms, deploy, release_state
from serving.operations.canary import Arm, Batch, Decision, Watch, decide, look, start
from serving.release_state import Candidate, ReleaseState
from serving.settings import address
from serving.stores.documents import Conversation, DocumentStore, Feedback, RequestLog, StoredMessage
from serving.stores.mongo import MongoStore

FILE = "watch.json"
USUAL = (2.5, 97.5)  # percentiles of the champion's mean answer lengths between which a length is usual
SLOW = 95.0  # percentile of the champion's answer times beyond which an answer is slow


class Talk(NamedTuple):
    """One conversation that came to rest, with all that is known of it."""

    conversation: Conversation
    messages: list[StoredMessage]
    feedback: list[Feedback]
    requests: list[RequestLog]

    @property
    def answers(self) -> list[StoredMessage]:
        return [message for message in self.messages if message.role == "assistant"]

    @property
    def mean_length(self) -> float:
        """Characters of its answers."""
        return float(np.mean([len(answer.content) for answer in self.answers])) if self.answers else 0.0

    @property
    def seconds(self) -> float:
        """Of the slowest of its answers."""
        return max((each.response_time for each in self.requests if "/messages" in each.endpoint), default=0.0)


class Limits(NamedTuple):
    """What counts as slow, short and long, fixed before the watch from the champion's conversations."""

    slow_s: float
    short: float
    long: float


def limits_of(talks: Sequence[Talk]) -> Limits:
    """The limits that the champion's `talks` give; without any nothing counts."""
    spoken = [talk for talk in talks if talk.answers]
    if not spoken:
        return Limits(float("inf"), 0.0, float("inf"))
    short, long = np.percentile([talk.mean_length for talk in spoken], USUAL)
    return Limits(float(np.percentile([talk.seconds for talk in spoken], SLOW)), float(short), float(long))


def arm_of_talks(talks: Sequence[Talk], limits: Limits) -> Arm:
    """How many of `talks` had each event."""

    def count(events: Sequence[bool]) -> int:
        return sum(events)

    rated = [talk for talk in talks if talk.feedback]
    return Arm(
        conversations=len(talks),
        rated=len(rated),
        thumbs_up=count([all(each.rating == "up" for each in talk.feedback) for talk in rated]),
        errors=count([any(each.status_code >= 500 for each in talk.requests) for talk in talks]),
        slow=count([talk.seconds > limits.slow_s for talk in talks]),
        moderated=count([any("moderated" in answer.metadata for answer in talk.answers) for talk in talks]),
        short=count([bool(talk.answers) and talk.mean_length < limits.short for talk in talks]),
        long=count([talk.mean_length > limits.long for talk in talks]),
    )


async def talks_since(documents: DocumentStore, since: datetime, until: datetime) -> list[Talk]:
    """The conversations that began at `since` or later and were last used before `until`, if anything was said."""
    begun = [each for each in await documents.begun_since(since) if each.last_updated < until]
    found = []
    for conversation in begun:
        messages = await documents.messages(conversation.user_id, conversation.conversation_id)
        answers = [message.message_id for message in messages if message.role == "assistant"]
        feedback = await documents.feedback(conversation.user_id, answers)
        requests = await documents.requests_of(conversation.conversation_id)
        if messages or any(each.status_code >= 500 for each in requests):
            found.append(Talk(conversation, messages, feedback, requests))
    return found


class Progress(NamedTuple):
    """A watch between two looks."""

    bento: str
    limits: Limits
    counted: set[str]  # conversations
    watch: Watch

    def to_json(self) -> dict[str, Any]:
        watch = {name: np.asarray(value).tolist() for name, value in self.watch._asdict().items()}
        return {"bento": self.bento, "limits": list(self.limits), "counted": sorted(self.counted), "watch": watch}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Self:
        arms_of = {name: Arm(*row["watch"][name]) for name in ("candidate", "champion")}
        watch: dict[str, Any] = {name: np.array(value) for name, value in row["watch"].items()}
        return cls(row["bento"], Limits(*row["limits"]), set(row["counted"]), Watch(**watch | arms_of))


def watched(progress: Progress, talks: Sequence[Talk], candidates: set[str], rule: Canary) -> Progress:
    """`progress` with the conversations among `talks` that were not counted yet, as one batch."""
    new = [talk for talk in talks if talk.conversation.conversation_id not in progress.counted]
    if not new:
        return progress
    ours = [talk for talk in new if talk.conversation.conversation_id in candidates]
    theirs = [talk for talk in new if talk.conversation.conversation_id not in candidates]
    batch = Batch(arm_of_talks(ours, progress.limits), arm_of_talks(theirs, progress.limits))
    counted = progress.counted | {talk.conversation.conversation_id for talk in new}
    return progress._replace(counted=counted, watch=look(progress.watch, batch, rule))


def after(state: ReleaseState, candidate: Candidate, decision: Decision, at: str) -> ReleaseState:
    """The release state that `decision` leads to."""
    if decision.verdict == "promote":
        return ReleaseState(candidate.bento, candidate.version, state.version, at, state.bento)
    if decision.verdict == "roll back":
        return replace(state, requested_at=at, candidate=None)
    return replace(state, candidate=replace(candidate, share=decision.share))


def note(state: ReleaseState, candidate: Candidate, decision: Decision, at: str) -> None:
    """Move the aliases as the decision says, and leave its reason with the version."""
    if decision.verdict == "promote":
        deploy.promote(candidate.version)
        registry.set_tag(candidate.version, "canary", f"{at} promoted: {decision.reason}")
    elif decision.verdict == "roll back":
        registry.set_alias("challenger", state.version)
        registry.set_tag(candidate.version, "rolled_back", f"{at} by the canary rule: {decision.reason}")


async def one_look(documents: DocumentStore, home: Path, candidate: Candidate, rule: Canary, now: datetime) -> Progress:
    """Count what came to rest since the last look."""
    file, since = home / release_state.FOLDER / FILE, datetime.fromisoformat(candidate.since)
    until = now - timedelta(seconds=rule.rest_s)
    kept = Progress.from_json(read_json(file)) if file.exists() else None
    if kept is None or kept.bento != candidate.bento:
        before = await talks_since(documents, since - timedelta(days=rule.reference_days), since)
        kept = Progress(candidate.bento, limits_of(before), set(), start())
    talks = await talks_since(documents, since, until)
    progress = watched(kept, talks, arms.read(home, candidate.bento), rule)
    write_json(file, progress.to_json())
    return progress


async def look_at(home: Path, candidate: Candidate, rule: Canary, now: datetime) -> Progress:
    """As `one_look`, with the store of MONGODB_URL."""
    documents = MongoStore(address("MONGODB_URL"))
    try:
        return await one_look(documents, home, candidate, rule, now)
    finally:
        await documents.close()


def rule_of(root: Path, version: int) -> Canary:
    """The rule in the parameters of the run that made `version`."""
    tags = tracking.client().get_run(registry.by_number(version).run_id).data.tags
    values = config.resolve(root, tags["profile"], json.loads(tags["overrides"]))
    return config.parse(values, f"the parameters of version {version}").release.canary


def rollout(root: Path, home: Path, now: datetime) -> ExitCode:
    """One look, and what follows from it."""
    state = release_state.read(home)
    if state is None or state.candidate is None or not state.candidate.share:
        print("no candidate answers a share of the conversations")
        return ExitCode.SKIP
    candidate, rule = state.candidate, rule_of(root, state.candidate.version)
    progress = asyncio.run(look_at(home, candidate, rule, now))
    decision, at = decide(progress.watch, rule), now.isoformat(timespec="seconds")
    release_state.write(home, after(state, candidate, decision, at))
    note(state, candidate, decision, at)
    print(f"{candidate.bento}: {decision.verdict}; {decision.reason}")
    return ExitCode.OK


def main() -> None:
    try:
        root, home = Path(os.environ["COLLOQUY_REPO"]), Path(os.environ["COLLOQUY_HOME"])
        sys.exit(rollout(root, home, datetime.now(UTC)))
    except BadInput as error:
        print(error, file=sys.stderr)
        sys.exit(ExitCode.BAD_INPUT)


if __name__ == "__main__":
    main()

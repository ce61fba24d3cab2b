"""From what the stores hold of a canary to what is done about it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.core.config import load_params
from serving import arms
from serving.operations.canary import Decision
from serving.operations.rollout import Limits, Progress, Talk, after, arm_of_talks, limits_of, one_look
from serving.release_state import Candidate, ReleaseState
from serving.stores.documents import Conversation, Feedback, RequestLog, StoredMessage
from tests.serving.fakes import MemoryStore
from tests.workspaces import ROOT

pytestmark = pytest.mark.anyio

RULE = load_params(ROOT / "params.yaml").release.canary
SINCE = datetime(2026, 11, 1, tzinfo=UTC)
CANDIDATE = Candidate("colloquy:v2-b", 2, 0.5, SINCE.isoformat())
STATE = ReleaseState("colloquy:v1-a", 1, None, "then", None, CANDIDATE)


async def talk(
    store: MemoryStore,
    name: str,
    hours: float,
    answer: str = "Yes.",
    rating: str = "",
    seconds: float = 1.0,
    status: int = 200,
    **metadata: str,
) -> str:
    """A conversation that began `hours` after the canary; returns its id."""
    at, conversation = SINCE + timedelta(hours=hours), f"conv-{name}"
    await store.put_conversation(Conversation(conversation, "user", "Title", at, at, {}))
    for position, (role, text) in enumerate((("user", "A?"), ("assistant", answer))):
        about = metadata if position else {}
        message = StoredMessage(f"{name}-{position}", conversation, "user", position, role, text, at, 1, about)  # type: ignore[arg-type]
        await store.put_message(message)
    if rating:
        await store.put_feedback(Feedback(f"fb-{name}", f"{name}-1", "user", rating, "", at, ""))  # type: ignore[arg-type]
    endpoint = "POST /api/conversations/{conversation_id}/messages"
    await store.log([RequestLog(name, at, "user", conversation, endpoint, 1, seconds, status, "")])
    return conversation


def belongs(home: Path, conversations: Sequence[str]) -> None:
    """Note that these are the candidate's."""
    everything = Candidate(CANDIDATE.bento, CANDIDATE.version, 1.0, CANDIDATE.since)
    for conversation in conversations:
        arms.Arms(home).begin(conversation, everything)


async def test_each_conversation_at_rest_counts_once_for_its_arm(tmp_path: Path):
    store = MemoryStore()
    for number in range(20):
        await talk(store, f"before-{number}", -2, "x" * (100 + number))
    ours = await talk(store, "ours", 1, "x" * 500, "down", seconds=9, status=500, moderated="hate")
    await talk(store, "theirs", 1, "x" * 110, "up")
    await talk(store, "still-used", 3)
    belongs(tmp_path, [ours])
    first = await one_look(store, tmp_path, CANDIDATE, RULE, SINCE + timedelta(hours=3))
    candidate, champion = first.watch.candidate, first.watch.champion
    assert (candidate.conversations, candidate.rated, candidate.thumbs_up, candidate.errors) == (1, 1, 0, 1)
    assert (candidate.slow, candidate.moderated, candidate.short, candidate.long) == (1, 1, 0, 1)
    assert (champion.conversations, champion.rated, champion.thumbs_up, champion.slow, champion.long) == (1, 1, 1, 0, 0)
    second = await one_look(store, tmp_path, CANDIDATE, RULE, SINCE + timedelta(hours=3))
    assert (second.watch.candidate.conversations, second.watch.champion.conversations) == (1, 1)
    third = await one_look(store, tmp_path, CANDIDATE, RULE, SINCE + timedelta(hours=5))
    assert third.watch.champion.conversations == 2 and third.limits == first.limits
    assert Progress.from_json(third.to_json()).to_json() == third.to_json()


async def test_another_candidate_is_watched_from_the_start(tmp_path: Path):
    store = MemoryStore()
    await talk(store, "theirs", 1)
    await one_look(store, tmp_path, CANDIDATE, RULE, SINCE + timedelta(hours=3))
    other = Candidate("colloquy:v3-c", 3, 0.5, (SINCE + timedelta(hours=2)).isoformat())
    progress = await one_look(store, tmp_path, other, RULE, SINCE + timedelta(hours=3))
    assert progress.watch.champion.conversations == 0


def test_without_a_past_nothing_is_slow_short_or_long():
    assert limits_of([]) == Limits(float("inf"), 0.0, float("inf"))
    at = Conversation("conv-a", "user", "Title", SINCE, SINCE, {})
    assert arm_of_talks([Talk(at, [], [], [])], limits_of([])).conversations == 1


def test_a_promotion_a_rollback_and_a_larger_share_change_the_state():
    promoted = after(STATE, CANDIDATE, Decision("promote", 1.0, ""), "now")
    assert promoted == ReleaseState("colloquy:v2-b", 2, 1, "now", "colloquy:v1-a")
    back = after(STATE, CANDIDATE, Decision("roll back", 0.0, ""), "now")
    assert (back.bento, back.version, back.candidate) == ("colloquy:v1-a", 1, None)
    on = after(STATE, CANDIDATE, Decision("go on", 0.9, ""), "now")
    assert on.candidate is not None and (on.candidate.share, on.candidate.since) == (0.9, CANDIDATE.since)


def test_arms_are_kept_and_follow_the_share(tmp_path: Path):
    kept = arms.Arms(tmp_path)
    names = [f"conv-{number}" for number in range(400)]
    for name in names:
        kept.begin(name, CANDIDATE)
    ours = {name for name in names if kept.has(name, CANDIDATE)}
    assert 140 < len(ours) < 260
    assert arms.read(tmp_path, CANDIDATE.bento) == ours == {n for n in names if arms.Arms(tmp_path).has(n, CANDIDATE)}

"""What is exported of production: rated and flagged answers of people who agreed, cleaned, each prompt once."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.core import config, feedback
from pipelines.core.feedback import RatedAnswer
from pipelines.core.jsonl import read_json, read_rows
from pipelines.core.sections.labeling import FeedbackExport
from serving.operations import feedback_export
from serving.operations.feedback_export import Candidate, Served, choose, next_run, read, write
from serving.stores import sql
from serving.stores.accounts import Accounts
from serving.stores.documents import Conversation, Feedback, StoredMessage, new_id
from tests.serving import servers
from tests.serving.fakes import MemoryStore
from tests.workspaces import ROOT

NOW = datetime(2026, 11, 1, tzinfo=UTC)
PARAMS = config.parse(config.resolve(ROOT, "tiny", []), "test")
RULE = PARAMS.feedback_export.model_copy(update={"pii_types": ["email", "phone"], "max_answers": 3})

pytestmark = pytest.mark.anyio


def rule(**changed: object) -> FeedbackExport:
    return RULE.model_copy(update=changed)


async def say(store: MemoryStore, user: str, texts: Sequence[str], **metadata: str) -> str:
    """A conversation of `texts` in turns; returns the id of its last answer."""
    conversation = Conversation(new_id("conv"), user, "Title", NOW, NOW, {})
    await store.put_conversation(conversation)
    for position, text in enumerate(texts):
        role = ("user", "assistant")[position % 2]
        about = {"model_version": "colloquy-v1"} | metadata if role == "assistant" else {}
        message = StoredMessage(
            new_id("msg"),
            conversation.conversation_id,
            user,
            position,
            role,
            text,
            NOW,
            1,
            about,  # type: ignore[arg-type]
        )
        await store.put_message(message)
    return message.message_id


async def rate(store: MemoryStore, user: str, message: str, rating: str, days_ago: int = 1) -> None:
    at = NOW - timedelta(days=days_ago)
    await store.put_feedback(Feedback(f"fb-{message}", message, user, rating, "", at, ""))  # type: ignore[arg-type]


@pytest.fixture
async def accounts():
    found = Accounts(sql.open_engine(servers.fresh_sqlite_url()))
    yield found
    await found.close()


async def sharing(accounts: Accounts, email: str, shares: bool) -> str:
    user = await accounts.add(email, "x")
    assert user is not None
    await accounts.change(user.user_id, preferences={"share_conversations": shares})
    return user.user_id


async def test_bad_answers_come_first_then_flagged_then_good_ones(accounts: Accounts):
    store, ada = MemoryStore(), await sharing(accounts, "ada@example.org", True)
    good = await say(store, ada, ["Good?", "Yes."])
    bad = await say(store, ada, ["First?", "Hm.", "Bad?", "No."])
    await say(store, ada, ["Hurtful?", "I can't help."], moderated="hate", moderated_place="input")
    await say(store, ada, ["Never rated?", "Yes."])
    old = await say(store, ada, ["Old?", "Yes."])
    await rate(store, ada, good, "up")
    await rate(store, ada, bad, "down")
    await rate(store, ada, old, "down", days_ago=31)
    found, left_out = await read(store, accounts, RULE, 0.7, NOW)
    assert [each.rated.signal for each in found] == ["down", "flagged", "up"]
    assert [message.content for message in found[0].rated.prompt.messages] == ["First?", "Hm.", "Bad?"]
    assert (found[0].rated.answer, found[0].rated.temperature, found[0].user_id) == ("No.", 0.7, ada)
    assert not left_out


async def test_who_did_not_agree_and_who_is_gone_is_left_out(accounts: Accounts):
    store = MemoryStore()
    shy, gone = await sharing(accounts, "shy@example.org", False), await sharing(accounts, "gone@example.org", True)
    for user in (shy, gone, "visitor-1"):
        await rate(store, user, await say(store, user, ["What?", "That."]), "down")
    await store.delete_user(gone)
    await accounts.delete(gone)
    found, left_out = await read(store, accounts, RULE, 0.7, NOW)
    assert not found and left_out == {"without consent": 2}
    found, _ = await read(store, accounts, rule(consent="terms"), 0.7, NOW)
    assert {each.user_id for each in found} == {shy, "visitor-1"}


def candidates(*questions: str) -> list[Candidate]:
    turns = [
        StoredMessage(f"m{n}", "c", "user-1", 0, "user", question, NOW, 1, {}) for n, question in enumerate(questions)
    ]
    prompts = [feedback_export.prompt_of([turn], "CC-BY-4.0") for turn in turns]
    return [Candidate(RatedAnswer(prompt, "Call 555-0100.", 0.7, "down"), "user-1") for prompt in prompts if prompt]


def test_personal_data_duplicates_and_what_was_exported_before_leave(tmp_path: Path):
    clean = feedback_export.cleaner(RULE.pii_types)
    questions = (
        "Who is ada@example.org and what does she do all day long?",
        "Who is grace@example.org and what does she do all day long?",
        "Is there any river in the middle of the city of Bern?",
        "How do I bake bread with nothing but flour and water?",
        "Why is the sky over the sea so very blue in summer?",
        "Which of the many birds of the north can swim best?",
    )
    first = choose(candidates(*questions), clean, set(), RULE)
    assert first.left_out == {"exported before": 0, "duplicates": 1, "beyond max_answers": 2}
    name = write(tmp_path, first, RULE, NOW)
    folder = feedback.folder(tmp_path, name)
    assert "example.org" not in (folder / feedback.ANSWERS).read_text()
    assert "[EMAIL]" in (folder / feedback.ANSWERS).read_text()
    assert {row["owner"] for row in read_rows(folder / feedback.OWNERS)} == {feedback.owner_of("user-1")}
    assert read_json(folder / feedback.MANIFEST)["left_out"]["duplicates"] == 1
    second = choose(candidates(*questions), clean, feedback_export.exported_before(tmp_path), RULE)
    assert second.left_out["exported before"] == 4
    assert [each.rated.prompt.messages[0].content for each in second.chosen] == list(questions[-2:])


def test_texts_go_after_their_time_and_owners_stay(tmp_path: Path):
    export = choose(candidates("A question?"), lambda text: text, set(), RULE)
    old, new = (write(tmp_path, export, RULE, NOW + timedelta(days=days)) for days in (0, 50))
    assert list(feedback_export.expire(tmp_path, NOW + timedelta(days=10))) == [old]
    assert not (feedback.folder(tmp_path, old) / feedback.ANSWERS).exists()
    assert (feedback.folder(tmp_path, old) / feedback.OWNERS).exists()
    assert (feedback.folder(tmp_path, new) / feedback.ANSWERS).exists()


def test_the_next_run_goes_on_from_the_champion_and_keeps_its_choices():
    before = ["labeling.labelers=simulated", "previous_round.run=zero", "pull_feedback.snapshot=older"]
    started = next_run(Served("one", "two", "tiny", before, PARAMS), "snapshot")
    assert started["profile"] == "tiny"
    assert started["overrides"] == [
        "labeling.labelers=simulated",
        "previous_round.run=one",
        "previous_round.challenger=two",
        "pull_feedback.snapshot=snapshot",
    ]
    config.resolve(ROOT, "tiny", started["overrides"])

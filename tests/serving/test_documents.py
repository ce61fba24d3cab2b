"""One suite for every document store: the embedded server through pymongo, and the fake that other tests use."""

import subprocess
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from serving.stores.documents import (
    REPLACED,
    Conversation,
    Counts,
    DocumentStore,
    Feedback,
    ModelMetric,
    Page,
    RequestLog,
    StoredMessage,
    new_id,
    now,
)
from serving.stores.errors import StoreDown
from serving.stores.mongo import MongoStore
from tests.serving import servers
from tests.serving.fakes import MemoryStore

Check = Callable[[DocumentStore], Awaitable[None]]


@pytest.fixture(params=["memory", "embedded", "server"])
def run(request: pytest.FixtureRequest) -> Callable[[Check], None]:
    """Runs a check on a store in an event loop of its own."""
    url = {"memory": lambda: "", "embedded": servers.embedded_documents_url, "server": servers.mongod_url}[
        request.param
    ]()
    if url is None:
        pytest.skip("mongod is not installed, and no registry carries it")

    async def with_store(check: Check) -> None:
        store = MongoStore(url) if url else MemoryStore()
        await store.prepare()
        await check(store)
        await store.close()

    return lambda check: anyio.run(with_store, check)


def conversation_of(user: str, title: str = "Title", seconds: int = 0) -> Conversation:
    at = now()
    return Conversation(new_id("conv"), user, title, at, at + timedelta(seconds=seconds), {"a": "b"})


def message_of(conversation: Conversation, position: int) -> StoredMessage:
    role = ("user", "assistant")[position % 2]
    content = f"text {position} \x00 \u00e9 \U0001f600"
    metadata = {"finish_reason": "stop"}
    return StoredMessage(
        new_id("msg"),
        conversation.conversation_id,
        conversation.user_id,
        position,
        role,  # type: ignore[arg-type]
        content,
        now(),
        position,
        metadata,
    )


def test_what_is_stored_comes_back_equal_also_after_a_change(run):
    async def check(store: DocumentStore) -> None:
        user = new_id("user")
        conversation = conversation_of(user)
        await store.put_conversation(conversation)
        assert await store.conversation(user, conversation.conversation_id) == conversation
        changed = replace(conversation, title="Other", last_updated=now() + timedelta(seconds=5))
        await store.put_conversation(changed)
        assert await store.conversation(user, conversation.conversation_id) == changed
        assert await store.change_conversation(conversation)
        assert await store.conversation(user, conversation.conversation_id) == conversation
        message = message_of(conversation, 0)
        await store.put_message(message)
        assert await store.messages(user, conversation.conversation_id) == [message]
        assert await store.message(user, message.message_id) == message

    run(check)


def test_conversations_come_newest_first_and_messages_in_order(run):
    async def check(store: DocumentStore) -> None:
        user = new_id("user")
        conversations = [conversation_of(user, f"c{seconds}", seconds) for seconds in (2, 9, 5)]
        for conversation in conversations:
            await store.put_conversation(conversation)
        assert [c.title for c in await store.conversations(user, Page(10))] == ["c9", "c5", "c2"]
        assert [c.title for c in await store.conversations(user, Page(2))] == ["c9", "c5"]
        for position in (2, 0, 1):
            await store.put_message(message_of(conversations[0], position))
        assert [m.position for m in await store.messages(user, conversations[0].conversation_id)] == [0, 1, 2]

    run(check)


def test_judging_again_replaces_the_judgement(run):
    async def check(store: DocumentStore) -> None:
        user, message = new_id("user"), new_id("msg")
        first = Feedback(new_id("fb"), message, user, "up", "", now(), "")
        await store.put_feedback(first)
        await store.put_feedback(replace(first, rating="down", feedback_text="wrong"))
        found = await store.feedback(user, [message, "msg-other"])
        assert found == [replace(first, rating="down", feedback_text="wrong")]

    run(check)


def test_another_user_reads_and_deletes_nothing(run):
    async def check(store: DocumentStore) -> None:
        user, other = new_id("user"), new_id("user")
        conversation = conversation_of(user)
        message = message_of(conversation, 1)
        await store.put_conversation(conversation)
        await store.put_message(message)
        await store.put_feedback(Feedback(new_id("fb"), message.message_id, user, "up", "", now(), ""))
        assert await store.conversation(other, conversation.conversation_id) is None
        assert await store.messages(other, conversation.conversation_id) == []
        assert await store.message(other, message.message_id) is None
        assert await store.feedback(other, [message.message_id]) == []
        assert not await store.delete_conversation(other, conversation.conversation_id)
        assert await store.conversation(user, conversation.conversation_id) == conversation

    run(check)


def test_deleting_a_conversation_takes_messages_and_feedback_with_it(run):
    async def check(store: DocumentStore) -> None:
        user = new_id("user")
        conversation = conversation_of(user)
        message = message_of(conversation, 1)
        await store.put_conversation(conversation)
        await store.put_message(message)
        await store.put_feedback(Feedback(new_id("fb"), message.message_id, user, "up", "", now(), ""))
        assert await store.delete_conversation(user, conversation.conversation_id)
        assert await store.messages(user, conversation.conversation_id) == []
        assert await store.feedback(user, [message.message_id]) == []
        assert not await store.delete_conversation(user, conversation.conversation_id)
        assert not await store.change_conversation(conversation)
        assert await store.conversation(user, conversation.conversation_id) is None

    run(check)


def test_a_server_that_is_not_there_is_said_in_time():
    async def ping() -> None:
        store = MongoStore("mongodb://127.0.0.1:1")
        try:
            await store.ping()
        finally:
            await store.close()

    started = time.monotonic()
    with pytest.raises(StoreDown, match=r"^the document store does not answer: .*127\.0\.0\.1:1"):
        anyio.run(ping)
    assert time.monotonic() - started < 6


async def filled(store: DocumentStore, user: str, titles: list[str]) -> list[Conversation]:
    """Conversations of one user with two messages and a thumb each; the first two were used in the same moment."""
    made = []
    for index, title in enumerate(titles):
        conversation = replace(conversation_of(user, title), last_updated=now() + timedelta(seconds=max(index, 1)))
        if index == 1:
            conversation = replace(conversation, last_updated=made[0].last_updated)
        await store.put_conversation(conversation)
        for position in (0, 1):
            message = replace(message_of(conversation, position), content=f"{title} said {position}. (a+b)*")
            await store.put_message(message)
        thumb = Feedback(new_id("fb"), message.message_id, user, "down", "", now(), "", "incorrect")
        await store.put_feedback(thumb)
        made.append(conversation)
    return made


def test_pages_follow_each_other_without_gap_or_repetition(run):
    async def check(store: DocumentStore) -> None:
        user = new_id("user")
        made = await filled(store, user, [f"c{index}" for index in range(7)])
        seen: list[Conversation] = []
        page = Page(2)
        while found := await store.conversations(user, page):
            seen += found
            page = Page(2, (found[-1].last_updated, found[-1].conversation_id))
        assert sorted(c.title for c in seen) == [c.title for c in made]
        assert seen == sorted(made, key=lambda c: (c.last_updated, c.conversation_id), reverse=True)

    run(check)


def test_search_looks_in_titles_and_messages_of_the_user_alone_and_takes_no_patterns(run):
    async def check(store: DocumentStore) -> None:
        user, other = new_id("user"), new_id("user")
        await filled(store, user, ["Paris", "Rome"])
        await filled(store, other, ["Paris"])

        async def titles(search: str) -> list[str]:
            return sorted(c.title for c in await store.conversations(user, Page(10, search=search)))

        assert await titles("PARIS") == ["Paris"]
        assert await titles("rome said 1") == ["Rome"]
        assert await titles("(a+b)*") == ["Paris", "Rome"]
        assert await titles(".*") == []

    run(check)


def test_a_replaced_turn_is_kept_and_not_shown(run):
    async def check(store: DocumentStore) -> None:
        user = new_id("user")
        conversation = conversation_of(user)
        await store.put_conversation(conversation)
        message = message_of(conversation, 0)
        await store.put_message(message)
        await store.put_message(replace(message, metadata={REPLACED: now().isoformat()}))
        assert await store.messages(user, conversation.conversation_id) == []
        kept = await store.message(user, message.message_id)
        assert kept is not None and kept.content == message.content and kept.timestamp == message.timestamp

    run(check)


def test_a_visitors_documents_become_the_accounts(run):
    async def check(store: DocumentStore) -> None:
        visitor, user = new_id("visitor"), new_id("user")
        (conversation,) = await filled(store, visitor, ["Paris"])
        before = await store.messages(visitor, conversation.conversation_id)
        await store.adopt(visitor, user)
        assert await store.conversations(visitor, Page(10)) == []
        assert await store.conversation(user, conversation.conversation_id) == replace(conversation, user_id=user)
        after = await store.messages(user, conversation.conversation_id)
        assert after == [replace(message, user_id=user) for message in before]
        assert len(await store.feedback(user, [message.message_id for message in after])) == 1

    run(check)


def test_a_deleted_user_leaves_nothing_behind_and_others_keep_theirs(run):
    async def check(store: DocumentStore) -> None:
        user, other = new_id("user"), new_id("user")
        (conversation,), (others,) = await filled(store, user, ["Mine"]), await filled(store, other, ["Theirs"])
        answers = [m.message_id for m in await store.messages(user, conversation.conversation_id)]
        log = RequestLog(new_id("req"), now(), user, "", "GET /api/me", 0, 0.1, 200, "")
        metric = ModelMetric(now(), "colloquy-v1", "local", 0.5, 12, 8, 4, 0.3, 256, None)
        await store.log([log, metric, replace(log, request_id=new_id("req"), user_id=other)])
        assert await store.delete_user(user) == [conversation.conversation_id]
        assert await store.conversations(user, Page(10)) == []
        assert await store.messages(user, conversation.conversation_id) == []
        assert await store.feedback(user, answers) == []
        assert len(await store.messages(other, others.conversation_id)) == 2

    run(check)


def test_administrators_find_what_was_flagged_and_judged(run):
    async def check(store: DocumentStore) -> None:
        user = new_id("user")
        before = await store.counts()
        (conversation,) = await filled(store, user, ["Paris"])
        flagged = replace(message_of(conversation, 3), metadata={"moderated": "hate", "moderated_place": "output"})
        await store.put_message(replace(flagged, timestamp=now() + timedelta(seconds=9)))
        assert (await store.flagged(1))[0].message_id == flagged.message_id
        judged = (await store.judged("down", 1))[0]
        assert judged.user_id == user and judged.reason == "incorrect"
        await store.put_feedback(replace(judged, action_taken="seen"))
        found = await store.judgement(judged.feedback_id)
        assert found is not None and found.action_taken == "seen"
        answer = await store.answer(judged.message_id)
        assert answer is not None and (answer.user_id, answer.role) == (user, "assistant")
        assert await store.answer("msg-none") is None
        assert conversation in await store.begun_since(conversation.created_at)
        assert conversation not in await store.begun_since(conversation.created_at + timedelta(seconds=1))
        after = await store.counts()
        assert Counts(*(a - b for a, b in zip(after, before, strict=True))) == Counts(1, 3, 0, 1)

    run(check)


def test_every_confirmed_message_survives_a_kill_of_the_embedded_store(tmp_path: Path):
    port = servers.free_port()
    command = servers.documents_command(tmp_path / "documents", port)
    user = new_id("user")
    conversation = conversation_of(user)
    confirmed: list[str] = []

    async def write(server: subprocess.Popen) -> None:
        store = MongoStore(f"mongodb://127.0.0.1:{port}")
        await store.prepare()
        await store.put_conversation(conversation)

        async def keep_writing(first: int) -> None:
            for position in range(first, 100_000, 4):
                message = message_of(conversation, position)
                try:
                    await store.put_message(message)
                except StoreDown:
                    return
                confirmed.append(message.message_id)

        async with anyio.create_task_group() as group:
            for first in range(4):
                group.start_soon(keep_writing, first)
            while len(confirmed) < 200:
                await anyio.sleep(0.01)
            server.kill()
        await store.close()

    async def read() -> set[str]:
        store = MongoStore(f"mongodb://127.0.0.1:{port}")
        found = {message.message_id for message in await store.messages(user, conversation.conversation_id)}
        await store.close()
        return found

    server = servers.launch(command, port)
    anyio.run(write, server)
    server.wait()
    again = servers.launch(command, port)
    try:
        assert set(confirmed) <= anyio.run(read)
    finally:
        again.terminate()
        again.wait(10)

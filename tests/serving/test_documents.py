"""One suite for every document store: the embedded server through pymongo, and the fake that other tests use."""

import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from serving.stores.documents import (
    Conversation,
    DocumentStore,
    Feedback,
    MongoStore,
    StoredMessage,
    StoreDown,
    new_id,
    now,
)
from tests.serving.conftest import free_port
from tests.serving.fakes import MemoryStore

Check = Callable[[DocumentStore], Awaitable[None]]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("documents"), free_port()
    command = [str(Path(sys.executable).with_name("nx-27017")), "--port", str(port), "--db", str(folder / "db")]
    command += ["--pid-file", str(folder / "pid"), "--log-file", str(folder / "log")]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield f"mongodb://127.0.0.1:{port}"
    server.terminate()
    server.wait(10)


@pytest.fixture(params=["memory", "embedded"])
def run(request: pytest.FixtureRequest) -> Callable[[Check], None]:
    """Runs a check on a store in an event loop of its own."""
    url = request.getfixturevalue("embedded") if request.param == "embedded" else None

    async def with_store(check: Check) -> None:
        if url is None:
            await check(MemoryStore())
            return
        store = MongoStore(url)
        deadline = time.monotonic() + 20
        while True:
            try:
                await store.prepare()
                break
            except StoreDown:
                assert time.monotonic() < deadline
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
        message = message_of(conversation, 0)
        await store.add_message(message)
        assert await store.messages(user, conversation.conversation_id) == [message]
        assert await store.message(user, message.message_id) == message

    run(check)


def test_conversations_come_newest_first_and_messages_in_order(run):
    async def check(store: DocumentStore) -> None:
        user = new_id("user")
        conversations = [conversation_of(user, f"c{seconds}", seconds) for seconds in (2, 9, 5)]
        for conversation in conversations:
            await store.put_conversation(conversation)
        assert [c.title for c in await store.conversations(user, 10)] == ["c9", "c5", "c2"]
        assert [c.title for c in await store.conversations(user, 2)] == ["c9", "c5"]
        for position in (2, 0, 1):
            await store.add_message(message_of(conversations[0], position))
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
        await store.add_message(message)
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
        await store.add_message(message)
        await store.put_feedback(Feedback(new_id("fb"), message.message_id, user, "up", "", now(), ""))
        assert await store.delete_conversation(user, conversation.conversation_id)
        assert await store.messages(user, conversation.conversation_id) == []
        assert await store.feedback(user, [message.message_id]) == []
        assert not await store.delete_conversation(user, conversation.conversation_id)

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

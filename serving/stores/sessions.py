"""Sessions in Valkey: a random token in the cookie, its hash as the key, gone when idle, expired or revoked."""

import hashlib
import json
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Self

from valkey.asyncio import Valkey

from serving.stores.documents import new_id, now
from serving.stores.valkey import answering

LIFETIME = timedelta(days=30)
IDLE = timedelta(days=7)
NOTED_EVERY = timedelta(minutes=1)  # how exact last_active is


@dataclass(frozen=True, slots=True)
class Session:
    """One device on which somebody is logged in. `auth_token` is the hash of the cookie, which is kept nowhere."""

    session_id: str
    user_id: str
    auth_token: str
    created_at: datetime
    expires_at: datetime
    last_active: datetime
    device_info: str

    @classmethod
    def from_json(cls, text: str) -> Self:
        values: dict[str, Any] = json.loads(text)
        times = {name: datetime.fromisoformat(values[name]) for name in ("created_at", "expires_at", "last_active")}
        return cls(**values | times)

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=datetime.isoformat)


def hash_of(token: str) -> str:
    """What is kept of a token; it is random, so that a fast hash is enough."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


class Sessions:
    """Opens, finds, lists and revokes sessions. Every method raises `StoreDown` when the server does not answer."""

    def __init__(self, client: Valkey, clock: Callable[[], datetime] = now) -> None:
        self._client = client
        self._clock = clock

    async def open(self, user_id: str, device_info: str) -> tuple[str, Session]:
        """A new session and the token for its cookie."""
        token, at = secrets.token_urlsafe(32), self._clock()
        session = Session(new_id("ses"), user_id, hash_of(token), at, at + LIFETIME, at, device_info)
        with answering():
            async with self._client.pipeline(transaction=True) as pipe:
                pipe.set(_session(session.auth_token), session.to_json(), px=IDLE)
                pipe.sadd(_sessions_of(user_id), session.auth_token)
                pipe.expire(_sessions_of(user_id), LIFETIME)
                await pipe.execute()
        return token, session

    async def find(self, token: str) -> Session | None:
        """The session of a cookie, or None when there is none any more."""
        with answering():
            text = await self._client.get(_session(hash_of(token)))
            session = Session.from_json(text) if text else None
            at = self._clock()
            if session is None or session.expires_at <= at:
                return None
            if at - session.last_active >= NOTED_EVERY:
                session = replace(session, last_active=at)
                left = min(IDLE, session.expires_at - at)
                # Only where it still is: a session that was revoked meanwhile must not come back.
                await self._client.set(_session(session.auth_token), session.to_json(), px=left, xx=True)
        return session

    async def of_user(self, user_id: str) -> list[Session]:
        """Everywhere that the user is logged in, the last used first."""
        with answering():
            tokens = sorted(await self._client.smembers(_sessions_of(user_id)))  # type: ignore[misc]
            texts = await self._client.mget([_session(token) for token in tokens]) if tokens else []
            if gone := [token for token, text in zip(tokens, texts, strict=True) if text is None]:
                await self._client.srem(_sessions_of(user_id), *gone)  # type: ignore[misc]
        found = [Session.from_json(text) for text in texts if text is not None]
        live = [session for session in found if session.expires_at > self._clock()]
        return sorted(live, key=lambda session: session.last_active, reverse=True)

    async def revoke(self, user_id: str, session_id: str) -> bool:
        """End one session of the user; False when it is not there."""
        gone = [each for each in await self.of_user(user_id) if each.session_id == session_id]
        await self._forget(user_id, gone)
        return bool(gone)

    async def revoke_all(self, user_id: str, but: str = "") -> None:
        """End every session of the user except the one with the id `but`."""
        await self._forget(user_id, [each for each in await self.of_user(user_id) if each.session_id != but])

    async def _forget(self, user_id: str, sessions: list[Session]) -> None:
        if not sessions:
            return
        tokens = [session.auth_token for session in sessions]
        with answering():
            async with self._client.pipeline(transaction=True) as pipe:
                pipe.delete(*(_session(token) for token in tokens))
                pipe.srem(_sessions_of(user_id), *tokens)
                await pipe.execute()


def _session(auth_token: str) -> str:
    return f"session:{auth_token}"


def _sessions_of(user_id: str) -> str:
    return f"sessions:{user_id}"

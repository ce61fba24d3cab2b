"""Passwords: argon2, off the event loop, with the same work whether or not there is an account."""

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

AT_ONCE = 2  # each takes 64 MiB while it works


class Passwords:
    """Hashes and checks passwords with argon2id at the library's parameters (RFC 9106, low memory)."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._nobodys = self._hasher.hash(secrets.token_urlsafe(32))
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="password")

    async def credentials(self, password: str) -> str:
        """What is kept of a password."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._hasher.hash, password)

    async def matches(self, credentials: str | None, password: str) -> bool:
        """Whether this is the password; None, for an account that is not there, takes as long and never matches."""
        kept = self._nobodys if credentials is None else credentials
        matched = await asyncio.get_running_loop().run_in_executor(self._threads, self._verify, kept, password)
        return matched and credentials is not None

    def outdated(self, credentials: str) -> bool:
        """Whether they were made with weaker parameters than today's."""
        return self._hasher.check_needs_rehash(credentials)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _verify(self, credentials: str, password: str) -> bool:
        try:
            return self._hasher.verify(credentials, password)
        except (VerificationError, InvalidHashError):
            return False

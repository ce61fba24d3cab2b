"""The connection to Valkey or Redis that sessions, rate limits and the context cache share."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from valkey.asyncio import Valkey
from valkey.exceptions import ValkeyError

from serving.stores.errors import StoreDown

TIMEOUT_S = 3


def connect(url: str) -> Valkey:
    """A client of the server at `url`, such as redis://127.0.0.1:6379; it connects when first used."""
    return Valkey.from_url(
        re.sub("^redis", "valkey", url),  # the driver knows the other name only
        decode_responses=True,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
    )


@contextmanager
def answering() -> Iterator[None]:
    """Turns the driver's errors into `StoreDown`."""
    try:
        yield
    except (ValkeyError, OSError) as error:
        raise StoreDown(f"the session store does not answer: {type(error).__name__}") from error

"""Rate limits in Valkey: uses are counted in fixed windows that every worker shares."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from valkey.asyncio import Valkey

from serving.stores.valkey import answering


class Use(NamedTuple):
    """One use to count: of what, by whom, and how many are allowed in a window."""

    what: str
    who: str
    limit: int
    window_s: int


class Limits:
    """Counts uses and says how long to wait. Raises `StoreDown` when the server does not answer."""

    def __init__(self, client: Valkey, clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._clock = clock

    async def take(self, uses: Sequence[Use]) -> int | None:
        """Count `uses` in one round trip; the seconds until all are allowed again, or None when they are now."""
        at = int(self._clock())
        with answering():
            async with self._client.pipeline(transaction=False) as pipe:
                for use in uses:
                    key = f"limit:{use.what}:{use.who}:{at // use.window_s}"
                    pipe.incr(key)
                    pipe.expire(key, use.window_s)
                counts = (await pipe.execute())[::2]
        waits = [use.window_s - at % use.window_s for use, count in zip(uses, counts, strict=True) if count > use.limit]
        return max(waits, default=None)

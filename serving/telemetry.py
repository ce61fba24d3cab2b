"""Request logs and model metrics: gathered in memory, written in the background, never waited for."""

import asyncio
import logging
from collections import deque

from serving.stores.documents import DocumentStore, ModelMetric, RequestLog
from serving.stores.errors import StoreDown

log = logging.getLogger("colloquy")

SECONDS_BETWEEN_WRITES = 1.0
MOST_WAITING = 20_000  # records; the oldest go first when the store is away for long


class Telemetry:
    """Takes records from anywhere in the event loop and writes them together."""

    def __init__(self) -> None:
        self._waiting: deque[RequestLog | ModelMetric] = deque(maxlen=MOST_WAITING)
        self._writing: asyncio.Task[None] | None = None
        self._store: DocumentStore | None = None

    def add(self, record: RequestLog | ModelMetric) -> None:
        self._waiting.append(record)

    def start(self, store: DocumentStore) -> None:
        """Begin to write into `store`."""
        self._store = store
        self._writing = asyncio.create_task(self._write_always())

    async def write(self) -> None:
        """Write what waits; when the store is away it goes on waiting."""
        records = list(self._waiting)
        if not records or self._store is None:
            return
        self._waiting.clear()
        try:
            await self._store.log(records)
        except StoreDown as error:
            log.warning("%d records wait for the store: %s", len(records), error)
            self._waiting.extendleft(reversed(records))

    async def close(self) -> None:
        """Write the rest and end."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        await self.write()

    async def _write_always(self) -> None:
        while True:
            await asyncio.sleep(SECONDS_BETWEEN_WRITES)
            await self.write()

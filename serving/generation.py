"""The engine behind a bounded queue: a few threads generate, a few more requests wait, the rest is refused."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch costs seconds; the running service loads it in the background
    from pipelines.model.engine import Engine, Generation, Sampling

FIRST_GUESS_S = 5.0  # of an answer's length, before one was measured
LONGEST_RETRY_S = 60


class Busy(Exception):
    """The queue is full; `retry_after_s` says when a place is likely."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"the assistant is busy; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class Running:
    """One admitted request: its pieces of text as they come, and its result at the end."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.result: Generation | None = None
        self._loop = loop
        self._cancelled = threading.Event()
        self._events: asyncio.Queue[str | BaseException | None] = asyncio.Queue()
        self._future: Future[None] | None = None

    def cancel(self) -> None:
        """Give the slot back: before the start at once, afterwards at the next token. Harmless when it has ended."""
        self._cancelled.set()
        if self._future is not None and self._future.cancel():
            self._events.put_nowait(None)

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    @property
    def done(self) -> bool:
        """Whether the slot is free again."""
        return self._future is not None and self._future.done()

    async def pieces(self) -> AsyncIterator[str]:
        """Yield the text as it is generated; an engine's failure is raised here."""
        while (event := await self._events.get()) is not None:
            if isinstance(event, BaseException):
                raise event
            yield event

    def _tell(self, event: str | BaseException | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
        except RuntimeError:  # the loop is closed: nobody listens any more
            self._cancelled.set()

    def _run(self, engine: "Engine", prompt: Sequence[int], sampling: "Sampling") -> None:
        try:
            stream = engine.stream(prompt, sampling, self._cancelled.is_set)
            while True:
                try:
                    piece = next(stream)
                except StopIteration as end:
                    self.result = end.value
                    break
                if piece:
                    self._tell(piece)
            self._tell(None)
        except Exception as error:
            self._tell(error)


class GenerationQueue:
    """Runs at most `max_concurrent` generations of `engine` at a time and lets `queue` more wait, first come first."""

    def __init__(self, engine: "Engine", max_concurrent: int, queue: int) -> None:
        self.max_concurrent = max_concurrent
        self.queue = queue
        self._engine = engine
        self._threads = ThreadPoolExecutor(max_concurrent, thread_name_prefix="generate")
        self._lock = threading.Lock()
        self._admitted = 0
        self._usual_s = FIRST_GUESS_S

    @property
    def running(self) -> int:
        """Requests that generate now."""
        return min(self._admitted, self.max_concurrent)

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        return max(0, self._admitted - self.max_concurrent)

    def start(self, prompt: Sequence[int], sampling: "Sampling") -> Running:
        """Admit a request; call within a running event loop.

        Raises:
            Busy: every slot and every place in the queue is taken.
        """
        with self._lock:
            if self._admitted >= self.max_concurrent + self.queue:
                rounds = (self.waiting + 1) / self.max_concurrent
                raise Busy(min(LONGEST_RETRY_S, max(1, round(self._usual_s * rounds))))
            self._admitted += 1
        running = Running(asyncio.get_running_loop())
        future = self._threads.submit(self._measured, running, prompt, sampling)
        running._future = future
        future.add_done_callback(self._leave)
        return running

    def close(self) -> None:
        """Take no more work; what runs is left to end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _measured(self, running: Running, prompt: Sequence[int], sampling: "Sampling") -> None:
        started = time.monotonic()
        running._run(self._engine, prompt, sampling)
        if not running.cancelled:
            self._usual_s += 0.2 * (time.monotonic() - started - self._usual_s)

    def _leave(self, future: "Future[None]") -> None:
        with self._lock:
            self._admitted -= 1

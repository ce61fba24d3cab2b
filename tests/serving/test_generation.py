import asyncio
import threading
import time

import pytest

from pipelines.model.engine import Sampling
from serving.generation import Busy, GenerationQueue, Running
from tests.serving.fakes import FakeEngine

SAMPLING = Sampling(max_new_tokens=50, temperature=0.0, top_p=1.0, seed=0)
PROMPT = [ord("x")]


async def text_of(running: Running) -> str:
    return "".join([piece async for piece in running.pieces()])


async def until(condition, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.005)


def test_an_answer_comes_in_pieces_with_its_result():
    async def run() -> None:
        queue = GenerationQueue(FakeEngine(), 1, 0)
        running = queue.start(PROMPT, SAMPLING)
        assert await text_of(running) == "Paris is it."
        assert running.result is not None and running.result.finish_reason == "stop"
        await until(lambda: queue.running == 0)

    asyncio.run(run())


def test_beyond_slots_and_queue_a_request_is_refused_with_a_time():
    async def run() -> None:
        engine = FakeEngine(gate=threading.Event())
        queue = GenerationQueue(engine, 2, 1)
        admitted = [queue.start(PROMPT, SAMPLING) for _ in range(3)]
        await until(lambda: engine.running == 2)
        assert (queue.running, queue.waiting) == (2, 1)
        with pytest.raises(Busy) as refused:
            queue.start(PROMPT, SAMPLING)
        assert 1 <= refused.value.retry_after_s <= 60
        engine.gate.set()
        assert await asyncio.gather(*map(text_of, admitted)) == ["Paris is it."] * 3

    asyncio.run(run())


def test_cancelling_frees_a_running_and_a_waiting_slot():
    async def run() -> None:
        engine = FakeEngine(gate=threading.Event())
        queue = GenerationQueue(engine, 1, 1)
        first, second = queue.start(PROMPT, SAMPLING), queue.start(PROMPT, SAMPLING)
        await until(lambda: engine.running == 1)
        second.cancel()
        assert await text_of(second) == "" and second.done
        first.cancel()
        await until(lambda: queue.running == 0)
        assert await text_of(first) == "" and first.result is None

    asyncio.run(run())


def test_an_engines_failure_reaches_the_caller_and_frees_the_slot():
    class Failing(FakeEngine):
        def stream(self, prompt, sampling, cancelled):
            yield "a"
            raise RuntimeError("out of memory")

    async def run() -> None:
        queue = GenerationQueue(Failing(), 1, 0)
        with pytest.raises(RuntimeError, match="out of memory"):
            await text_of(queue.start(PROMPT, SAMPLING))
        await until(lambda: queue.running == 0)

    asyncio.run(run())

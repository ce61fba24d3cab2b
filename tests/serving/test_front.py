"""The front passes each request whole to the server that is chosen for it, and notices who leaves."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from serving.front import Front, Target, asked_for, forwarded, header

pytestmark = pytest.mark.anyio


class Echo:
    """A server that says what it was asked, after `gate`; `left` is set when somebody leaves before the end."""

    def __init__(self) -> None:
        self.gate, self.left = asyncio.Event(), asyncio.Event()
        self.gate.set()
        self.heads: list[bytes] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        body = await reader.readexactly(length)
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nfirst ")
        await writer.drain()
        leaving, going = asyncio.create_task(reader.read(1)), asyncio.create_task(self.gate.wait())
        done, waiting = await asyncio.wait({leaving, going}, return_when=asyncio.FIRST_COMPLETED)
        if going not in done:
            self.left.set()
        for task in waiting:
            task.cancel()
        writer.write(body)
        writer.close()


@asynccontextmanager
async def scene(choose: Callable[[bytes, list[Target]], Target | None], count: int = 2) -> AsyncIterator:
    """Servers behind a front, and a client of the front."""
    echoes = [Echo() for _ in range(count)]
    listening = [await asyncio.start_server(echo.handle, "127.0.0.1", 0) for echo in echoes]
    targets = [Target("127.0.0.1", server.sockets[0].getsockname()[1]) for server in listening]
    front = await Front(lambda head: choose(head, targets)).start("127.0.0.1", 0)
    url = f"http://127.0.0.1:{front.sockets[0].getsockname()[1]}"
    async with httpx.AsyncClient(base_url=url, timeout=20) as client:
        yield client, echoes, targets
    for server in (front, *listening):
        server.close()


async def test_each_request_of_a_client_goes_where_it_belongs_with_its_whole_body():
    async with scene(lambda head, targets: targets[asked_for(head)[1] == b"/other"]) as (client, echoes, targets):
        body = b"x" * 3_000_000
        for path, number in (("/one?a=b", 0), ("/other", 1), ("/one", 0)):
            answer = await client.post(path, content=body)
            assert answer.content == b"first " + body
            assert echoes[number].heads[-1].startswith(f"POST {path} HTTP/1.1".encode())
        assert [target.active for target in targets] == [0, 0]


async def test_a_stream_comes_as_it_is_written_and_its_server_is_busy_till_the_end():
    async with scene(lambda path, targets: targets[0], 1) as (client, (echo,), (target,)):
        echo.gate.clear()
        async with client.stream("POST", "/", content=b"last") as answer:
            pieces = answer.aiter_bytes()
            assert await anext(pieces) == b"first " and target.active == 1
            echo.gate.set()
            assert b"".join([piece async for piece in pieces]) == b"last"
        assert target.active == 0


async def test_a_server_learns_that_its_reader_has_left():
    async with scene(lambda path, targets: targets[0], 1) as (client, (echo,), _):
        echo.gate.clear()
        async with client.stream("GET", "/") as answer:
            await anext(answer.aiter_bytes())
        await asyncio.wait_for(echo.left.wait(), 20)


@pytest.mark.parametrize("choose", [lambda path, targets: None, lambda path, targets: Target("127.0.0.1", 9)])
async def test_without_a_server_the_reason_is_told(choose):
    async with scene(choose) as (client, _, _):
        answer = await client.get("/")
        assert answer.status_code == 503 and answer.headers["retry-after"] == "5"
        assert answer.json()["error"]["code"] == "not_ready"


def test_the_head_says_who_asks_and_asks_for_one_answer():
    head = b"GET /a/b?c=d HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 1.1.1.1\r\nConnection: keep-alive\r\n\r\n"
    assert asked_for(head) == (b"GET", b"/a/b") and asked_for(b"nonsense") == (b"nonsense", b"")
    assert header(head, b"host") == b"h" and header(head, b"cookie") == b""
    assert forwarded(head, "2.2.2.2") == (
        b"GET /a/b?c=d HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 1.1.1.1, 2.2.2.2\r\nConnection: close\r\n\r\n"
    )


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_request_under_way_is_not_collected_as_garbage():
    asked, gate = asyncio.Event(), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await gate.wait()
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nlate")
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    target = Target(*listening.sockets[0].getsockname())
    front = await Front(lambda head: target).start("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*front.sockets[0].getsockname())
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    writer.write_eof()
    await asked.wait()
    await asyncio.sleep(0.1)
    gc.collect()
    gate.set()
    assert (await asyncio.wait_for(reader.read(), 20)).endswith(b"late")
    writer.close()
    for server in (front, listening):
        server.close()

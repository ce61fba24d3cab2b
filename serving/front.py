"""One address before several servers: each request goes whole to the server that is chosen for it.

Bytes are passed on as they come, so that streams stay streams and a reader who leaves is noticed. A connection carries
one request, since the next one may belong to another server.
"""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

HEAD_LIMIT = 64 * 1024  # bytes of a request line with its headers
HEAD_TIMEOUT_S = 60.0
PIECE = 64 * 1024
OURS = (b"connection:", b"x-forwarded-for:")  # headers that are written anew


@dataclass
class Target:
    """Where a server listens, and how many requests it answers just now."""

    host: str
    port: int
    active: int = 0


Choose = Callable[[bytes], Target | None]  # by the head of a request; None: nobody can answer
Told = Callable[[bytes, bytes], None]  # the head of a request, and a piece of its response before it is passed on


def asked_for(head: bytes) -> tuple[bytes, bytes]:
    """The method and the path, without its query, in a request's head."""
    method, target, *_ = [*head.split(b" ", 2), b"", b""]
    return method, target.partition(b"?")[0]


def header(head: bytes, name: bytes) -> bytes:
    """The value of the header `name`, in lower case, or nothing."""
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip()
    return b""


def nobody(head: bytes, piece: bytes) -> None:
    """Takes no notice of responses."""


def forwarded(head: bytes, client: str) -> bytes:
    """The head as the server gets it: for one request, with the address of who asks."""
    request, *headers = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    before = [header.partition(b":")[2].strip() for header in headers if header.lower().startswith(OURS[1])]
    kept = [header for header in headers if not header.lower().startswith(OURS)]
    came_from = b"X-Forwarded-For: " + b", ".join([*before, client.encode()])
    return b"\r\n".join([request, *kept, came_from, b"Connection: close", b"", b""])


def refusal(reason: str) -> bytes:
    """A whole response that says why nobody answers, in OpenAI's form."""
    error = {"message": reason, "type": "server_error", "param": None, "code": "not_ready"}
    body = json.dumps({"error": error}).encode()
    head = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 5\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


async def pump(
    source: asyncio.StreamReader, sink: asyncio.StreamWriter, told: Callable[[bytes], None] | None = None
) -> None:
    """Pass bytes on until the source ends or the sink is gone."""
    with suppress(OSError):
        while piece := await source.read(PIECE):
            if told:
                told(piece)
            sink.write(piece)
            await sink.drain()
        if sink.can_write_eof():
            sink.write_eof()


class Front:
    """Listens, and hands each request to the server that `choose` names."""

    def __init__(self, choose: Choose, told: Told = nobody) -> None:
        self._choose = choose
        self._told = told
        self._at_work: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> asyncio.Server:
        return await asyncio.start_server(self._handle, host, port, limit=HEAD_LIMIT, backlog=2048)

    def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # asyncio keeps only weak references to tasks and, once a client has said its last, to its connection.
        task = asyncio.create_task(self._serve(reader, writer))
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_TIMEOUT_S)
            await self._answer(head, reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            pass  # whoever asked has left, or never asked a question
        finally:
            writer.close()

    async def _answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = self._choose(head)
        if target is None:
            writer.write(refusal("not ready: the model is loading"))
            return await writer.drain()
        target.active += 1  # before anything is awaited: a server that is asked is not ended
        try:
            try:
                source, sink = await asyncio.open_connection(target.host, target.port)
            except OSError:
                writer.write(refusal("not ready: the server starts"))
                return await writer.drain()
            await self._relay(head, reader, writer, source, sink)
        finally:
            target.active -= 1

    async def _relay(
        self,
        head: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
    ) -> None:
        """Pass the request on and the response back; ends with the response."""
        sink.write(forwarded(head, str(writer.get_extra_info("peername")[0])))
        asking = asyncio.create_task(pump(reader, sink))
        try:
            await pump(source, writer, lambda piece: self._told(head, piece))
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            sink.close()

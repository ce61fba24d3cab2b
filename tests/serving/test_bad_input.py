"""Whatever is sent, the server answers in its own form and goes on: no 5xx, no crash."""

import json
import random
import socket

import httpx
import pytest

from serving.middleware import SECURITY_HEADERS
from tests.serving.conftest import Served
from tests.serving.fakes import Parts, client_of
from tests.serving.test_accounts import sign_up

RANDOM_REQUESTS = 10_000
SEED = 7
A_CONNECTION = 20  # requests down one connection; what is no request ends its own

NESTED = b'{"a":' * 50_000 + b"1" + b"}" * 50_000
BODIES = {
    "empty": b"",
    "broken": b'{"content": "x',
    "not an object": b"[1, 2]",
    "nested arrays": b"[" * 100_000,
    "nested objects": NESTED,
    "UTF-16": '{"content": "x"}'.encode("utf-16"),
    "Latin-1": '{"content": "é"}'.encode("latin-1"),
    "cut UTF-8": b'{"content": "\xc3"}',
    "lone surrogate": b'{"content": "\\ud800", "email": "\\ud800", "name": "\\udfff", "title": "\\ud800"}',
    "null bytes": b'{"content": "\\u0000", "name": "\\u0000", "title": "\\u0000", "message_id": "\\u0000"}',
    "infinite": b'{"temperature": Infinity, "content": NaN}',
    "huge number": b'{"max_tokens": ' + b"9" * 5000 + b"}",
    "many fields": json.dumps({f"f{index}": index for index in range(20_000)}).encode(),
    "one long string": b'{"content": "' + b"x" * 900_000 + b'"}',
    "too large": b'{"content": "' + b"x" * 2_000_000 + b'"}',
}

VALID = ("UTF-16", "null bytes", "one long string")  # somewhere: JSON may be all of these


def in_own_form(answer: httpx.Response) -> bool:
    """A refusal is OpenAI's error body, whatever was sent."""
    return answer.status_code < 400 or set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.anyio
@pytest.mark.parametrize("name", BODIES)
async def test_bad_bodies_are_refused_at_every_address(parts: Parts, name: str):
    async with client_of(parts.app()) as client:
        me = await sign_up(client)
        await parts.products[0].stores.accounts.set_admin(me["user_id"], True)
        conversation = (await client.post("/api/conversations")).json()["conversation_id"]
        for path, methods in client._transport.app.openapi()["paths"].items():
            for method, operation in methods.items():
                if "requestBody" not in operation:
                    continue
                address = path.format(conversation_id=conversation, message_id="msg-1", feedback_id="fb-1")
                headers = {"content-type": "application/json"}
                answer = await client.request(method, address, content=BODIES[name], headers=headers)
                assert 400 <= answer.status_code < 500 or name in VALID, (path, answer)
                assert answer.status_code < 500 and in_own_form(answer), (path, answer)
                if name == "too large":
                    assert answer.status_code == 413, path


@pytest.mark.anyio
async def test_strange_addresses_and_headers_are_refused(parts: Parts):
    strange = [
        "%00",
        "%ff%fe",
        "..%2f..%2fetc%2fpasswd",
        "a" * 5000,
        "%F0%9F%98%80",
        "'; DROP TABLE users; --",
        "$where",
    ]
    async with client_of(parts.app()) as client:
        for text in strange:
            for path in (
                "/api/conversations/",
                "/v1/models/",
                "/web/",
                "/api/conversations?search=",
                "/api/conversations?cursor=",
            ):
                answer = await client.get(path + text)
                assert answer.status_code < 500, path + text
        cookies = {"Cookie": "colloquy_session=\xff\xfe; colloquy_visitor=\x80; =; ;;".encode("latin-1")}
        assert (await client.get("/api/me", headers=cookies)).status_code in (200, 401)
        bearer = {"Authorization": b"Bearer sk-colloquy-\xff\xfe"}
        assert (await client.get("/v1/models", headers=bearer)).status_code == 401
        query = {"search": {"$gt": ""}, "limit": "1e9"}
        assert (await client.get("/api/conversations", params=query)).status_code == 400


@pytest.mark.anyio
async def test_every_answer_carries_the_security_headers(parts: Parts):
    async with client_of(parts.app()) as client:
        answers = [await client.get(path) for path in ("/", "/web/chat.js", "/api/status", "/missing")]
        answers.append(await client.post("/v1/chat/completions", content=b"{"))
    for answer in answers:
        for name, value in SECURITY_HEADERS.items():
            assert answer.headers[name.decode()] == value.decode(), answer.url
    assert "unsafe" not in answers[0].headers["content-security-policy"]
    assert answers[2].headers["cache-control"] == "no-store"


def noise(draw: random.Random, paths: list[tuple[str, str]]) -> bytes:
    """Bytes that are no request, from the start or after a right first line."""
    method, path = draw.choice(paths)
    first = draw.choice([b"", f"{method} {path} HTTP/1.1\r\n".encode(), b"GET / HTTP/1.1\r\nHost: x\r\n"])
    return first + draw.randbytes(draw.randrange(1, 400)) + draw.choice([b"", b"\r\n\r\n"])


def nonsense(draw: random.Random, paths: list[tuple[str, str]]) -> bytes:
    """A right request with random bytes, or JSON with some bytes wrong, as its body."""
    method, path = draw.choice(paths)
    body = bytearray(json.dumps({"content": "x", "messages": [], "email": "a@b.c"}).encode())
    for _ in range(draw.randrange(1, 6)):
        body[draw.randrange(len(body))] = draw.randrange(256)
    if draw.random() < 0.5:
        body = bytearray(draw.randbytes(draw.randrange(1, 400)))
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def exchange(port: int, sent: bytes, then_close: bool) -> bytes:
    """Send bytes down one connection; what came back until the server closed it."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        try:
            connection.sendall(sent)
            if then_close:
                connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                received += piece
        except (BrokenPipeError, ConnectionResetError):
            pass  # the server closes a connection that makes no sense
    return received


def test_ten_thousand_random_requests_crash_nothing(served: Served):
    port = int(served.url.rpartition(":")[2])
    description = httpx.get(f"{served.url}/api/openapi.json", timeout=60).json()
    paths = [
        (method.upper(), path.replace("{", "").replace("}", ""))
        for path, methods in description["paths"].items()
        for method in methods
    ]
    draw = random.Random(SEED)
    last = b"GET /api/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    for _ in range(RANDOM_REQUESTS // 2 // A_CONNECTION):
        requests = [nonsense(draw, paths) for _ in range(A_CONNECTION)]
        received = exchange(port, b"".join([*requests, last]), then_close=False)
        assert received.count(b"HTTP/1.1 ") == A_CONNECTION + 1 and b"HTTP/1.1 5" not in received
    for _ in range(RANDOM_REQUESTS // 2):
        assert b"HTTP/1.1 5" not in exchange(port, noise(draw, paths), then_close=True)
    assert httpx.get(f"{served.url}/api/status", timeout=60).json()["ready"]

"""What happens to every request: security headers, a limit on bodies, no foreign origins, a line in the log."""

import time
import uuid
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import ApiError
from serving.stores.documents import RequestLog, now

MAX_BODY_BYTES = 1_000_000
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

SECURITY_HEADERS = {
    b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    b"require-trusted-types-for 'script'; trusted-types 'none'",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
OVER_TLS = {b"strict-transport-security": b"max-age=31536000"}


class SecurityHeaders:
    """Adds the headers that keep a page to its own code, and personal answers out of caches."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        added = SECURITY_HEADERS | (OVER_TLS if scope["scheme"] == "https" else {})
        personal = scope["path"].startswith(("/api/", "/v1/"))

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = message.get("headers", [])
                if personal and not any(name == b"cache-control" for name, _ in own):
                    own = [*own, (b"cache-control", b"no-store")]
                message["headers"] = [*own, *added.items()]
            await send(message)

        await self.app(scope, receive, send_with_headers)


class SameOrigin:
    """Refuses what a page of another origin makes a browser send; programs send neither header and pass.

    Every browser of the last years says where a request comes from (`Sec-Fetch-Site`), older ones send the origin
    with everything that may change something. The cookies are `SameSite=Lax` besides.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in SAFE_METHODS and _foreign(Headers(scope=scope)):
            await ApiError(403, "requests from other sites are refused", code="cross_origin").response()(
                scope, receive, send
            )
            return
        await self.app(scope, receive, send)


def _foreign(headers: Headers) -> bool:
    if site := headers.get("sec-fetch-site"):
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != headers.get("host")


class BodyLimit:
    """Refuses a body beyond `MAX_BODY_BYTES`, announced or not."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        too_large = f"the body is larger than {MAX_BODY_BYTES} bytes"
        length = dict(scope["headers"]).get(b"content-length", b"")
        if length.isdigit() and int(length) > MAX_BODY_BYTES:
            await ApiError(413, too_large).response()(scope, receive, send)
            return
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY_BYTES:
                raise HTTPException(413, too_large)  # the one exception that FastAPI's body reading lets through
            return message

        await self.app(scope, receive_limited, send)


class RequestLogs:
    """Gives each request an id and writes what became of it, with the route instead of the path."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(("/api/", "/v1/")):
            await self.app(scope, receive, send)
            return
        request_id = f"req-{uuid.uuid4().hex}"
        started, at = time.monotonic(), now()
        status, size = 500, 0

        async def receive_counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            return message

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-request-id", request_id.encode())]
            await send(message)

        error_type = ""
        try:
            await self.app(scope, receive_counted, send_with_id)
        except BaseException as error:
            error_type = type(error).__name__
            raise
        finally:
            state, took = scope.get("state", {}), time.monotonic() - started
            route = getattr(scope.get("route"), "path", "unknown")
            scope["app"].state.backend.telemetry.add(
                RequestLog(
                    request_id,
                    at,
                    state.get("user_id", ""),
                    scope.get("path_params", {}).get("conversation_id", ""),
                    f"{scope['method']} {route}",
                    size,
                    took,
                    status,
                    error_type or state.get("error_type", ""),
                )
            )

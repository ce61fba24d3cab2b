"""The ASGI application: API, conversations, feedback, status and the chat page, around an injected backend."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import errors
from serving.backend import Backend, Product
from serving.errors import ApiError
from serving.routes import completions, conversations, feedback, status
from serving.settings import Release
from serving.stores.documents import StoreDown

WEB = Path(__file__).with_name("web")
MAX_BODY_BYTES = 1_000_000

SECURITY_HEADERS = {
    b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
}


class SecurityHeaders:
    """Adds the headers that keep a page from running or loading anything that is not its own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *SECURITY_HEADERS.items()]
            await send(message)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)


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


def create_app(read_release: Callable[[], Release], open_product: Callable[[Release], Awaitable[Product]]) -> FastAPI:
    """The application. Both callables run when the server starts; `open_product` in the background."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.backend = Backend(read_release(), open_product)
        app.state.backend.start()
        yield
        await app.state.backend.close()

    # The interactive documentation of FastAPI loads from outside hosts, so only the description is served.
    app = FastAPI(title="Colloquy", lifespan=lifespan, docs_url=None, redoc_url=None)
    errors.install(app)
    app.add_middleware(BodyLimit)
    app.add_middleware(SecurityHeaders)

    @app.exception_handler(StoreDown)
    async def store_down(request: Request, error: StoreDown) -> JSONResponse:
        return ApiError(503, str(error), code="store_unavailable", retry_after_s=5).response()

    for router in (completions.router, conversations.router, feedback.router, status.router):
        app.include_router(router)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(WEB / "index.html", headers={"Cache-Control": "no-cache"})

    app.mount("/web", StaticFiles(directory=WEB), name="web")
    return app

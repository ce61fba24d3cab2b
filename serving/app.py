"""The ASGI application: API, accounts, conversations, feedback, status and the page, around an injected backend."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles

from serving import description, errors
from serving.answers import REFUSALS
from serving.backend import Backend, Product
from serving.errors import ApiError
from serving.middleware import BodyLimit, RequestLogs, SameOrigin, SecurityHeaders
from serving.routes import (
    accounts,
    admin,
    completions,
    conversations,
    feedback,
    keys,
    messages,
    sessions,
    status,
)
from serving.settings import Release
from serving.stores.errors import StoreDown

WEB = Path(__file__).with_name("web")
ROUTES = (accounts, sessions, keys, conversations, messages, feedback, completions, admin, status)


def create_app(read_release: Callable[[], Release], open_product: Callable[[Release], Awaitable[Product]]) -> FastAPI:
    """The application. Both callables run when the server starts; `open_product` in the background."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.backend = Backend(read_release(), open_product)
        app.state.backend.start()
        yield
        await app.state.backend.close()

    # The interactive documentation of FastAPI loads from outside hosts, so only the description is served.
    app = FastAPI(
        title="Colloquy",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        responses=REFUSALS,
    )
    errors.install(app)
    for middleware in (BodyLimit, SameOrigin, RequestLogs, SecurityHeaders):  # the last is the outermost
        app.add_middleware(middleware)

    @app.exception_handler(StoreDown)
    async def store_down(request: Request, error: StoreDown) -> JSONResponse:
        request.state.error_type = "store_unavailable"
        return ApiError(503, str(error), code="store_unavailable", retry_after_s=5).response()

    for routes in ROUTES:
        app.include_router(routes.router)
    description.install(app)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(WEB / "index.html", headers={"Cache-Control": "no-cache"})

    app.mount("/web", StaticFiles(directory=WEB), name="web")
    return app

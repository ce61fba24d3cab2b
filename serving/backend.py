"""What the routes share: the release, and the model, moderation and stores behind it once they answer."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request

from serving.assistant import Assistant
from serving.errors import ApiError
from serving.moderation import ModerationDown
from serving.passwords import Passwords
from serving.settings import Release
from serving.stores.errors import StoreDown
from serving.stores.open import Stores
from serving.telemetry import Telemetry

log = logging.getLogger("colloquy")

RETRY_AFTER_S = 5
FRESH_S = 1.0  # how long one look at stores and moderation counts


@dataclass(frozen=True, slots=True)
class Product:
    """The parts that answer."""

    assistant: Assistant
    stores: Stores
    passwords: Passwords


class Backend:
    """Opens the product in the background, so that the server can say from the first moment why it is not ready."""

    def __init__(self, release: Release, open_product: Callable[[Release], Awaitable[Product]]) -> None:
        self.release = release
        self.product: Product | None = None
        self.problem: str | None = "the model is loading"
        self._open_product = open_product
        self._looked_at = 0.0
        self._opening: asyncio.Task[None] | None = None
        self._saving: set[asyncio.Task[None]] = set()
        self.telemetry = Telemetry()

    def start(self) -> None:
        self._opening = asyncio.create_task(self._open())

    async def _open(self) -> None:
        while self.product is None:
            try:
                self.product = await self._open_product(self.release)
                self.problem = None
                self.telemetry.start(self.product.stores.documents)
                log.info("%s is ready", self.release.bento)
            except StoreDown as error:  # comes back by itself; a broken model does not
                self.problem = str(error)
                await asyncio.sleep(1)
            except Exception as error:
                log.exception("the product can't start")
                self.problem = f"{type(error).__name__}: {error}"
                return

    async def not_ready(self) -> str | None:
        """Why this server can't answer now, or None: model, moderation and stores must all be there."""
        if self.product is None:
            return self.problem
        if time.monotonic() - self._looked_at > FRESH_S:
            self.problem = None
            try:
                await self.product.stores.ping()
                await self.product.assistant.moderation.check([("input", "Good morning.")])
            except StoreDown as error:
                self.problem = str(error)
            except ModerationDown as error:
                self.problem = f"moderation does not answer: {error}"
            self._looked_at = time.monotonic()
        return self.problem

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work` even if the request that asks for it is being cancelled; `close` waits for it."""
        task = asyncio.create_task(work)
        self._saving.add(task)
        task.add_done_callback(self._saving.discard)

    async def close(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
        if self.product is not None:
            await asyncio.gather(*self._saving, return_exceptions=True)
            await self.telemetry.close()
            self.product.assistant.close()
            self.product.passwords.close()
            await self.product.stores.close()


def backend_of(request: Request) -> Backend:
    """The backend of the app that serves `request`."""
    backend: Backend = request.app.state.backend
    return backend


def product_of(request: Request) -> Product:
    """The product, or the reason why there is none yet."""
    backend = backend_of(request)
    if backend.product is None:
        raise ApiError(503, f"not ready: {backend.problem}", code="not_ready", retry_after_s=RETRY_AFTER_S)
    return backend.product


TheBackend = Annotated[Backend, Depends(backend_of)]
TheProduct = Annotated[Product, Depends(product_of)]

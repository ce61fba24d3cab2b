"""The application over fakes, in this process or on a real port."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import uvicorn

from tests.serving.fakes import CHAT, Parts
from tests.serving.servers import free_port


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def parts(request: pytest.FixtureRequest) -> Parts:
    """The fakes; a test may give other chat parameters."""
    return Parts(chat=getattr(request, "param", CHAT))


@dataclass
class Served:
    url: str
    parts: Parts


@pytest.fixture
def served(parts: Parts) -> Iterator[Served]:
    """The application on a real socket, as uvicorn under BentoML serves it."""
    port = free_port()
    app = parts.app()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not (server.started and app.state.backend.product) and time.monotonic() < deadline:
        time.sleep(0.01)
    yield Served(f"http://127.0.0.1:{port}", parts)
    server.should_exit = True
    thread.join(10)

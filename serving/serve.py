"""Serves the bento that the release state names, on CHAT_URL's port; what the stack runs as its chat process.

A new release starts beside the old one and takes over once it is ready, so that no request fails at a switch; the old
one ends its answers. A candidate answers its share of new conversations, and whoever names it in the header
X-Colloquy-Release. The version before stays loaded, for a rollback within seconds. Before the first release this
waits. A server that dies is started again.

Environment: COLLOQUY_HOME, BENTOML_HOME, CHAT_URL and the stores' MONGODB_URL, REDIS_URL and SQL_URL;
COLLOQUY_KEEP_PREVIOUS=0 ends the version before, where memory is short.
"""

import asyncio
import ctypes
import logging
import os
import re
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import httpx

from serving import release_state
from serving.arms import Arms
from serving.front import Front, Target, asked_for, header
from serving.release_state import Candidate, ReleaseState

log = logging.getLogger("colloquy")

LOOPBACK = "127.0.0.1"
GRACE_S = 6  # for running answers when a server is told to end
DRAIN_S = 600.0  # for answers of a server that nobody new is sent to
SECONDS_BETWEEN_LOOKS = 0.25
SECONDS_BETWEEN_STARTS = 3.0  # of a server that dies
_PR_SET_PDEATHSIG = 1
RELEASE_HEADER = b"x-colloquy-release"
CONVERSATION = re.compile(rb"conv-[0-9a-f]{32}")
IN_CONVERSATION = re.compile(rb"/api/conversations/(" + CONVERSATION.pattern + rb")(?:/|$)")


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def command(bento: str, port: int) -> list[str]:
    """The command line that serves `bento` on `port` of the loopback interface, one worker."""
    words = ["-m", "bentoml", "serve", bento, "--host", LOOPBACK, "--port", str(port), "--api-workers", "1"]
    return [sys.executable, *words, "--timeout-graceful-shutdown", str(GRACE_S)]


def own_home(bento: str) -> Path:
    """A BENTOML_HOME of the server's own over the shared stores: BentoML empties its metrics' folder at each start."""
    home = Path(os.environ["COLLOQUY_HOME"], release_state.FOLDER, "servers", bento.replace(":", "-"))
    home.mkdir(parents=True, exist_ok=True)
    for name in ("bentos", "models"):
        if not (home / name).is_symlink():
            (home / name).symlink_to(Path(os.environ["BENTOML_HOME"], name).resolve())
    return home


def _end_with_parent() -> None:
    """Let the kernel end this process when the one that started it is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Server:
    """One bento in a process of its own."""

    def __init__(self, bento: str, process: asyncio.subprocess.Process, target: Target) -> None:
        self.bento = bento
        self.process = process
        self.target = target
        self.ready = False
        self.unwanted_since: float | None = None

    @classmethod
    async def start(cls, bento: str) -> Self:
        environment = os.environ | {"DO_NOT_TRACK": "True", "BENTOML_DO_NOT_TRACK": "True", "PYTHONNOUSERSITE": "1"}
        environment.pop("PYTHONPATH", None)  # the bento brings the code that it was built with
        home, port = own_home(bento), free_port()
        words = command(bento, port)
        # Away from a checkout, whose packages would come before the bento's.
        process = await asyncio.create_subprocess_exec(
            *words,
            cwd=home,
            env=environment | {"BENTOML_HOME": str(home)},
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        log.info("%s starts on port %d", bento, port)
        return cls(bento, process, Target(LOOPBACK, port))

    @property
    def dead(self) -> bool:
        return self.process.returncode is not None

    async def look(self, client: httpx.AsyncClient) -> None:
        """See whether it is ready; once it is, it stays so for the choice of who answers."""
        if not self.ready:
            try:
                answer = await client.get(f"http://{LOOPBACK}:{self.target.port}/readyz")
                self.ready = answer.is_success
            except httpx.HTTPError:
                pass

    async def end(self) -> None:
        if not self.dead:
            self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), GRACE_S + 4)
            except TimeoutError:
                os.killpg(self.process.pid, signal.SIGKILL)  # its worker too
                await self.process.wait()


class Servers:
    """The servers that the release state asks for, and which of them answers."""

    def __init__(self, home: Path) -> None:
        self._arms = Arms(home)
        self._candidate: Candidate | None = None
        self._servers: dict[str, Server] = {}
        self._started: dict[str, float] = {}
        self._client = httpx.AsyncClient(timeout=5, trust_env=False)
        self.current: Server | None = None

    def choose(self, head: bytes) -> Target | None:
        """Where a request goes: to the release that it names, to the candidate where the conversation is its, else to
        the server that is ready, or to one that can say why it is not."""
        answering = (
            self._named(head) or self._candidates(head) or self.current or next(iter(self._servers.values()), None)
        )
        return answering.target if answering else None

    def _named(self, head: bytes) -> Server | None:
        return self._servers.get(header(head, RELEASE_HEADER).decode("latin-1"))

    def _candidates(self, head: bytes) -> Server | None:
        found = IN_CONVERSATION.match(asked_for(head)[1])
        if self._candidate is None or found is None or not self._arms.has(found[1].decode(), self._candidate):
            return None
        server = self._servers.get(self._candidate.bento)
        return server if server and server.ready else None

    def told(self, head: bytes, piece: bytes) -> None:
        """Notice the conversations that begin."""
        if self._candidate and asked_for(head) == (b"POST", b"/api/conversations"):
            for found in CONVERSATION.findall(piece):
                self._arms.begin(found.decode(), self._candidate)

    async def follow(self, state: ReleaseState) -> None:
        """One step towards what the state asks for."""
        wanted = [state.bento]
        if state.candidate:
            wanted.append(state.candidate.bento)
        if state.previous_bento and os.environ.get("COLLOQUY_KEEP_PREVIOUS", "1") != "0":
            wanted.append(state.previous_bento)
        for bento, server in list(self._servers.items()):
            if server.dead:
                log.error("%s ended with exit code %s", bento, server.process.returncode)
                del self._servers[bento]
                self.current = None if self.current is server else self.current
        for bento in wanted:
            served = self._servers.get(bento) or await self._start(bento)
            if served is None:
                break
            await served.look(self._client)
            if not served.ready:
                break  # one model loads at a time, what is asked for first
        self._candidate = state.candidate if state.candidate and state.candidate.share else None
        asked = self._servers.get(state.bento)
        if asked and asked.ready and self.current is not asked:
            self.current = asked
            log.info("%s answers", asked.bento)
        await self._end_unwanted(wanted)

    async def _start(self, bento: str) -> Server | None:
        if time.monotonic() - self._started.get(bento, -SECONDS_BETWEEN_STARTS) < SECONDS_BETWEEN_STARTS:
            return None
        self._started[bento] = time.monotonic()
        self._servers[bento] = await Server.start(bento)
        return self._servers[bento]

    async def _end_unwanted(self, wanted: list[str]) -> None:
        """End servers that nobody asks for any more, once their last answer is written."""
        for bento, server in list(self._servers.items()):
            if bento in wanted or server is self.current:
                server.unwanted_since = None
                continue
            server.unwanted_since = server.unwanted_since or time.monotonic()
            if not server.target.active or time.monotonic() - server.unwanted_since > DRAIN_S:
                del self._servers[bento]
                log.info("%s ends", bento)
                await server.end()

    async def close(self) -> None:
        await asyncio.gather(*(server.end() for server in self._servers.values()))
        await self._client.aclose()


async def serve(home: Path, host: str, port: int) -> None:
    """Serve what the state in `home` names until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sign, stop.set)
    servers = Servers(home)
    listening = await Front(servers.choose, servers.told).start(host, port)
    try:
        while not stop.is_set():
            if (state := release_state.read(home)) is not None:
                await servers.follow(state)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), SECONDS_BETWEEN_LOOKS)
    finally:
        listening.close()
        await servers.close()


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    address = urlsplit(os.environ["CHAT_URL"])
    asyncio.run(serve(Path(os.environ["COLLOQUY_HOME"]), address.hostname or LOOPBACK, address.port or 80))


if __name__ == "__main__":
    main()

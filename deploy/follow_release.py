"""Serves what the release state names and follows its changes; the chat container runs it. Standard library only.

    python -m deploy.follow_release

In: `$COLLOQUY_HOME/serving/release.json`. It waits for the first release. A change ends the server and starts it anew,
as the supervisor of the local stack does; a server that dies ends this process, which its container starts again.
"""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

SERVE = [sys.executable, "-m", "serving.serve"]
SECONDS_BETWEEN_LOOKS = 0.5
GRACE_S = 18.0  # of the container's 20, for answers that are being written


def read(release: Path) -> bytes | None:
    """The release state, or None before the first."""
    try:
        return release.read_bytes()
    except FileNotFoundError:
        return None


def end(server: subprocess.Popen[bytes]) -> None:
    """Ask the server to stop, and kill it when it does not."""
    server.terminate()
    try:
        server.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def follow(command: list[str], release: Path, stop: threading.Event) -> int:
    """Run `command` while the release stays the same, again after each change, until `stop`; returns its exit code."""
    while not stop.is_set():
        seen = read(release)
        if seen is None:
            stop.wait(SECONDS_BETWEEN_LOOKS)
            continue
        server = subprocess.Popen(command)
        while server.poll() is None and read(release) == seen and not stop.wait(SECONDS_BETWEEN_LOOKS):
            pass
        if server.poll() is not None:
            return server.returncode or 1
        end(server)
    return 0


def main() -> None:
    stop = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda number, frame: stop.set())
    sys.exit(follow(SERVE, Path(os.environ["COLLOQUY_HOME"], "serving", "release.json"), stop))


if __name__ == "__main__":
    main()

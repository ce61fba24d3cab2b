"""Serves the bento that the release state names, on CHAT_URL's port; what the stack runs as its chat process.

Environment: COLLOQUY_HOME, BENTOML_HOME, CHAT_URL and the stores' MONGODB_URL, REDIS_URL and SQL_URL. The process
becomes BentoML's own, so that signals reach it directly.
"""

import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

from serving import release_state

GRACE_S = 6  # for running answers at a restart; the stack kills after 8


def command(bento: str, chat_url: str) -> list[str]:
    """The command line that serves `bento` on the address of `chat_url`, one worker."""
    address = urlsplit(chat_url)
    host, port = address.hostname or "127.0.0.1", str(address.port or 80)
    words = ["-m", "bentoml", "serve", bento, "--host", host, "--port", port, "--api-workers", "1"]
    return [sys.executable, *words, "--timeout-graceful-shutdown", str(GRACE_S)]


def main() -> None:
    state = release_state.read(Path(os.environ["COLLOQUY_HOME"]))
    if state is None:
        sys.exit("there is no release yet: a run that passes its gate makes one")
    environment = os.environ | {"DO_NOT_TRACK": "True", "BENTOML_DO_NOT_TRACK": "True", "PYTHONNOUSERSITE": "1"}
    environment.pop("PYTHONPATH", None)  # the bento brings the code that it was built with
    folder = Path(os.environ["COLLOQUY_HOME"], release_state.FOLDER)
    os.chdir(folder)  # away from a checkout, whose packages would come before the bento's
    words = command(state.bento, os.environ["CHAT_URL"])
    os.execve(words[0], words, environment)


if __name__ == "__main__":
    main()

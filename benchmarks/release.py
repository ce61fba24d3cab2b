"""How long a trace and a rollback take, and how many requests fail meanwhile, on the local stack as it is.

    make bench NAME=release
    ROUNDS=5 make bench NAME=release

Needs a stack that is up (`make up`) with two releases, such as two runs of `make demo PROFILE=tiny` with different
`SET="seed=…"`. `trace_s` is the whole command `make trace` of a fresh answer, process start included. `rollback_s` is
the whole command `make rollback`, there and back in each round, while three clients ask, one of them for streams;
`failed_requests` counts what was anything but a whole answer. Times are medians over `ROUNDS`. The champion is
afterwards the one that it was before; the versions keep a note of the last rollback.
"""

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from deploy.local import settings as local
from serving import release_state

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = int(os.environ.get("ROUNDS", "3"))
CLIENTS = 3
PAUSE_S = 1.6  # between two questions of one client: together they stay under 120 requests a minute
MAKE = ["make", "--no-print-directory", "-s"]


def timed(*words: str) -> float:
    """Seconds of `make <words>`, which must end well."""
    started = time.monotonic()
    subprocess.run([*MAKE, *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def ask(client: httpx.Client) -> str:
    """A visitor's question; returns the id of its answer."""
    path = f"/api/conversations/{client.post('/api/conversations').raise_for_status().json()['conversation_id']}"
    client.post(f"{path}/messages", json={"content": "Hello"}).raise_for_status()
    identifier: str = client.get(path).json()["messages"][-1]["message_id"]
    return identifier


class Load:
    """Clients that ask again and again, as often as visitors may; 429 is that limit and no failure."""

    def __init__(self, url: str) -> None:
        self.seen: Counter[str] = Counter()
        self._url, self._stop = url, threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(CLIENTS)]

    def _ask(self, number: int) -> None:
        body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8, "stream": number == 0}
        with httpx.Client(base_url=self._url, timeout=60) as client:
            while not self._stop.is_set():
                self.seen[self._outcome(client, body)] += 1
                self._stop.wait(PAUSE_S)

    def _outcome(self, client: httpx.Client, body: dict[str, Any]) -> str:
        try:
            answer = client.post("/v1/chat/completions", json={"model": "colloquy", **body})
        except httpx.HTTPError as error:
            return f"failed: {type(error).__name__}"
        if answer.status_code == 429:
            return "told to wait"
        whole = not body["stream"] or answer.text.rstrip().endswith("data: [DONE]")
        return "answered" if answer.is_success and whole else f"failed: {answer.status_code}"

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def main() -> None:
    settings = local.load()
    state, url = release_state.read(settings.home), settings.url("CHAT")
    if state is None or state.previous_bento is None or not local.port_taken(settings.ports["CHAT"]):
        print(f"{settings.home} has no running stack with two releases: make up, and make demo twice with another seed")
        sys.exit(2)
    os.environ.setdefault("COLLOQUY_ENVS", str(settings.envs))
    with httpx.Client(base_url=url, timeout=60) as client:
        traces = [timed("trace", f"MESSAGE={ask(client)}") for _ in range(ROUNDS)]
    with Load(url) as load:
        rollbacks = [timed("rollback", "BY=the benchmark", "REASON=to time it") for _ in range(2 * ROUNDS)]
    for name, values in (("trace", traces), ("rollback", rollbacks)):
        print(f"{name:<10}{statistics.median(values):6.2f} s   of {', '.join(f'{value:.2f}' for value in values)}")
    for outcome, count in load.seen.most_common():
        print(f"{count:>6} requests {outcome}")
    figures = {
        "trace_s": round(statistics.median(traces), 2),
        "rollback_s": round(statistics.median(rollbacks), 2),
        "failed_requests": sum(count for outcome, count in load.seen.items() if outcome.startswith("failed")),
    }
    print(json.dumps({"name": "release", "figures": figures}))


if __name__ == "__main__":
    main()

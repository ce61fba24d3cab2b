"""Puts the built bento into service: asks for it, waits until it answers, then moves the aliases.

In: `.run/build_bento.json`. Out: the release state that `serving.serve` follows, the alias `champion` on the version
and `previous` on the one before, `.run/deploy.json`. Nothing changes when the bento is already served. When the new
bento does not answer, the state goes back to the old one and no alias moves. With `release.rollout: canary` the bento
becomes a candidate beside the champion, and `serving.operations.rollout` decides about the alias.
"""

import os
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from pipelines.core import artifacts, registry
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_json, write_json
from pipelines.core.stage import Stage, open_stage
from serving import release_state
from serving.release_state import Candidate, ReleaseState

ANSWERS_WITHIN_S = 180.0
SECONDS_BETWEEN_LOOKS = 0.5
RELEASE_HEADER = "X-Colloquy-Release"  # names the release that shall answer; serving/serve.py


class DeployFailed(Exception):
    """The new bento did not come up in time; a retry may help."""


def status(chat_url: str, bento: str = "") -> dict[str, Any]:
    """What the chat process, or in it the server of `bento`, says of itself; {} while nothing answers."""
    headers = {RELEASE_HEADER: bento} if bento else {}
    try:
        answer = httpx.get(f"{chat_url}/api/status", timeout=5, headers=headers)
        return dict(answer.json()) if answer.status_code == 200 else {}
    except (httpx.HTTPError, ValueError):
        return {}


def serves(found: dict[str, Any], bento: str) -> bool:
    """Whether `bento` answers and is ready."""
    return found.get("bento") == bento and bool(found.get("ready"))


def wait_for(chat_url: str, bento: str, seconds: float, named: bool = False) -> None:
    """Return when `bento` is served, to everybody, or when `named` to who names it.

    Raises:
        DeployFailed: it was not within `seconds`; the message says what was seen last and where the log is.
    """
    deadline = time.monotonic() + seconds
    found: dict[str, Any] = {}
    while time.monotonic() < deadline:
        found = status(chat_url, bento if named else "")
        if serves(found, bento):
            return
        time.sleep(SECONDS_BETWEEN_LOOKS)
    seen = f"{found['bento']} answers ({found['reason'] or 'ready'})" if found else "nothing answers"
    log = Path(os.environ["COLLOQUY_HOME"]) / "logs" / "chat.log"
    raise DeployFailed(f"{bento} did not answer at {chat_url} within {seconds:.0f} s: {seen}; see the end of {log}")


def promote(number: int) -> int | None:
    """Make version `number` the champion and return the version before; the alias moves last."""
    champion = registry.by_alias("champion")
    if champion is not None and champion.number == number:
        previous = registry.by_alias("previous")
        return previous.number if previous else None
    if champion is not None:
        registry.set_alias("previous", champion.number)
    registry.set_alias("champion", number)
    return champion.number if champion else None


def deploy(stage: Stage, home: Path, chat_url: str, seconds: float = ANSWERS_WITHIN_S) -> None:
    """Serve the built bento: to everybody, with its version promoted, or beside the champion as a candidate."""
    built = read_json(artifacts.BENTO)
    bento, number = built["bento"], built["version"]
    state = release_state.read(home)
    if state is not None and state.bento != bento and stage.params.release.rollout == "canary":
        deploy_beside(home, state, bento, number, chat_url, seconds)
        write_json(artifacts.DEPLOYED, {"bento": bento, "version": number, "previous": state.version, "changed": True})
        stage.tracker.set_tags({"bento": bento})
        print(f"{bento} is served beside {state.bento} at {chat_url}; it gets its share after the smoke test")
        return
    changed = state is None or state.bento != bento
    if changed:
        champion = registry.by_alias("champion")
        previous = champion.number if champion and champion.number != number else None
        release_state.write(home, ReleaseState(bento, number, previous, timestamp(), state.bento if state else None))
    try:
        wait_for(chat_url, bento, seconds)
    except DeployFailed:
        if changed and state is not None:
            release_state.write(home, state)
        raise
    before = promote(number)
    write_json(artifacts.DEPLOYED, {"bento": bento, "version": number, "previous": before, "changed": changed})
    stage.tracker.set_tags({"bento": bento, "champion": str(number)})
    print(f"{bento} {'is' if changed else 'was already'} served at {chat_url}; champion is version {number}")


def timestamp() -> str:
    """Now, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def deploy_beside(home: Path, state: ReleaseState, bento: str, number: int, chat_url: str, seconds: float) -> None:
    """Start `bento` beside the champion, without a share yet.

    Raises:
        BadInput: another candidate is being watched.
        DeployFailed: it does not come up; the state is as before then.
    """
    if state.candidate is not None and state.candidate.bento != bento:
        raise BadInput(f"{state.candidate.bento} is being watched; wait for its end, or take it back by make rollback")
    if state.candidate is None:
        release_state.write(home, replace(state, candidate=Candidate(bento, number, 0.0, timestamp())))
    try:
        wait_for(chat_url, bento, seconds, named=True)
    except DeployFailed:
        release_state.write(home, state)
        raise


def give_share(home: Path, bento: str, share: float) -> None:
    """Let the candidate `bento` answer `share` of the conversations that begin from now on."""
    state = release_state.read(home)
    if (
        state is not None
        and state.candidate is not None
        and state.candidate.bento == bento
        and not state.candidate.share
    ):
        candidate = replace(state.candidate, share=share, since=timestamp())
        release_state.write(home, replace(state, candidate=candidate))


def main() -> None:
    with open_stage("deploy") as stage:
        deploy(stage, Path(os.environ["COLLOQUY_HOME"]), os.environ["CHAT_URL"].rstrip("/"))


if __name__ == "__main__":
    main()

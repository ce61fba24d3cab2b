"""Takes the candidate back that is being watched, or serves the version before again.

    python -m serving.operations.rollback --by NAME --reason WHY        make rollback BY=… REASON=…

Out: the release state the other way round, which `serving.serve` follows within a second while that version is still
loaded; `champion` and `previous` change places, and name and reason stay with the version that was taken back.
Environment: COLLOQUY_HOME, CHAT_URL, MLFLOW_TRACKING_URI.
"""

import argparse
import os
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from pipelines.core import registry
from pipelines.core.errors import BadInput
from serving import deploy, release_state
from serving.release_state import ReleaseState

ANSWERS_WITHIN_S = 180.0  # where the version before has to be loaded


def turned_back(state: ReleaseState | None, at: str) -> ReleaseState:
    """The state in which the version before `state`'s is served.

    Raises:
        BadInput: there is none.
    """
    if state is None or state.previous is None or state.previous_bento is None:
        raise BadInput("there is no version before the one that is served; a second release makes one")
    return ReleaseState(state.previous_bento, state.previous, state.version, at, state.bento)


def rollback(home: Path, chat_url: str, by: str, reason: str) -> ReleaseState:
    """Serve the version before; returns the new state.

    Raises:
        BadInput: there is none, or name or reason is missing.
        DeployFailed: it does not come up; nothing has changed then.
    """
    if not by.strip() or not reason.strip():
        raise BadInput(f"a rollback needs a name and a reason, got BY={by!r} and REASON={reason!r}")
    before = release_state.read(home)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    said = f"{at} by {by.strip()}: {reason.strip()}"
    if before is not None and before.candidate is not None:
        state = replace(before, candidate=None, requested_at=at)
        release_state.write(home, state)
        registry.set_alias("challenger", before.version)
        registry.set_tag(before.candidate.version, "rolled_back", said)
        return state
    state = turned_back(before, at)
    release_state.write(home, state)
    try:
        deploy.wait_for(chat_url, state.bento, ANSWERS_WITHIN_S)
    except deploy.DeployFailed:
        assert before is not None
        release_state.write(home, before)
        raise
    deploy.promote(state.version)
    assert state.previous is not None
    registry.set_tag(state.previous, "rolled_back", said)
    return state


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m serving.operations.rollback", description=__doc__)
    parser.add_argument("--by", required=True, help="your name")
    parser.add_argument("--reason", required=True, help="why the served version is taken back")
    asked = parser.parse_args()
    try:
        home, chat_url = Path(os.environ["COLLOQUY_HOME"]), os.environ["CHAT_URL"].rstrip("/")
        state = rollback(home, chat_url, asked.by, asked.reason)
    except (BadInput, deploy.DeployFailed) as error:
        sys.exit(str(error))
    print(f"{state.bento} is served; champion is version {state.version}, previous is version {state.previous}")


if __name__ == "__main__":
    main()

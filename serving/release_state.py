"""The file that says which bento is to be served: `$COLLOQUY_HOME/serving/release.json`.

`deploy` and `rollback` write it; `serving.serve` follows it. Standard library only, since the stack's supervisor may
read it too.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

FOLDER = "serving"
FILE = "release.json"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A release that answers a share of new conversations, beside the one that answers the others."""

    bento: str
    version: int
    share: float  # 0 until its smoke test has passed
    since: str  # ISO 8601, UTC: when it got its first share


@dataclass(frozen=True, slots=True)
class ReleaseState:
    """What is asked to be served now, and which version was served before it."""

    bento: str
    version: int
    previous: int | None
    requested_at: str  # ISO 8601, UTC
    previous_bento: str | None = None  # stays loaded, for a rollback
    candidate: Candidate | None = None


def path(home: Path) -> Path:
    """Where the state lies under COLLOQUY_HOME."""
    return home / FOLDER / FILE


def read(home: Path) -> ReleaseState | None:
    """The state, or None before the first release."""
    try:
        found = json.loads(path(home).read_text())
    except FileNotFoundError:
        return None
    candidate = found.pop("candidate", None)
    return ReleaseState(**found, candidate=Candidate(**candidate) if candidate else None)


def write(home: Path, state: ReleaseState) -> None:
    """Replace the state; readers see the old or the new."""
    target = path(home)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{FILE}.{os.getpid()}")
    partial.write_text(json.dumps(asdict(state), indent=2) + "\n")
    partial.replace(target)

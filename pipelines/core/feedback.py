"""Snapshots of rated answers: `serving.operations.feedback_export` writes them, the stage `pull_feedback` reads them.

A snapshot is a folder `$COLLOQUY_HOME/feedback/<name>` that is never changed once written, and holds
`answers.jsonl` (RatedAnswer rows), `owners.jsonl` ({id, owner}: whose each row is, as a pseudonym) and `snapshot.json`.
When its texts have been kept for long enough `answers.jsonl` goes, so that `owners.jsonl` still answers a deletion.
"""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

from pipelines.core.digests import file_sha256
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import Row
from pipelines.core.records import Conversation

FOLDER = "feedback"
ANSWERS = "answers.jsonl"
OWNERS = "owners.jsonl"
MANIFEST = "snapshot.json"

Signal = Literal["down", "flagged", "up"]


@dataclass(frozen=True, slots=True)
class RatedAnswer:
    """A question of the product with the answer that somebody rated or that moderation stopped.

    The signal says why people should look at it; nothing is trained on it.
    """

    prompt: Conversation  # ends with the question
    answer: str
    temperature: float  # that it was sampled at
    signal: Signal

    @classmethod
    def from_row(cls, row: Row) -> Self:
        return cls(Conversation.from_row(row["prompt"]), row["answer"], row["temperature"], row["signal"])

    def to_row(self) -> Row:
        return asdict(self) | {"prompt": self.prompt.to_row()}


def folder(home: Path, name: str) -> Path:
    """Where the snapshot `name` lies."""
    return home / FOLDER / name


def snapshots(home: Path) -> list[Path]:
    """The snapshots under `home`, also those whose texts are gone."""
    return sorted(path.parent for path in (home / FOLDER).glob(f"*/{MANIFEST}"))


def answers_sha256(home: Path, name: str) -> str:
    """The hash of a snapshot's answers.

    Raises:
        BadInput: there is no such snapshot, or its texts have been removed.
    """
    path = folder(home, name) / ANSWERS
    if not path.exists():
        raise BadInput(f"there are no answers of the snapshot {name!r} ({path}): never exported, or kept long enough")
    return file_sha256(path)


def owner_of(user_id: str) -> str:
    """The pseudonym of a user; ids are random, so that nobody guesses one from it."""
    return "owner-" + hashlib.sha256(user_id.encode()).hexdigest()[:16]

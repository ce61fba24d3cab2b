"""What a bento knows of itself: the release that `build_bento` wrote beside the code, and the addresses it is given.

`release.json` lies at the root of the bento's source, so code and description can't part.
"""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_json
from pipelines.core.sections.serving import Chat

SOURCE = Path(__file__).resolve().parents[1]
RELEASE_FILE = "release.json"
MODERATION_FOLDER = "moderation"  # beside RELEASE_FILE
STORES = {
    "MONGODB_URL": "the document store: conversations, feedback and logs",
    "REDIS_URL": "Valkey or Redis: sessions, rate limits and the context cache",
    "SQL_URL": "the database of users: sqlite:////folder/users.db or postgresql://…",
}


@dataclass(frozen=True, slots=True)
class Release:
    """One served model: where it came from, what it is called, and how it answers."""

    bento: str  # colloquy:v7-1a2b3c4d
    model: str  # tag in BentoML's model store
    version: int  # in the registry
    profile: str
    git_commit: str
    lock_hash: str
    simulated_labels: bool
    verdict: str  # the gate's, with its rules' name
    promoted_by: str | None  # who released it although the gate did not
    promoted_reason: str | None
    chat: Chat

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        return cls(**values | {"chat": Chat.model_validate(values["chat"])})

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"chat": self.chat.model_dump()}

    @property
    def model_id(self) -> str:
        """The name that API clients see and send."""
        return f"colloquy-v{self.version}"


def bento_tag(number: int, lock_hash: str) -> str:
    """The tag of a version's bento: with the start of its lock hash, so that two registries' v7 differ."""
    return f"colloquy:v{number}-{lock_hash[:8]}"


def read_release(source: Path = SOURCE) -> Release:
    """The release that lies beside the code in `source`.

    Raises:
        BadInput: the code does not run from a bento.
    """
    path = source / RELEASE_FILE
    if not path.exists():
        raise BadInput(f"{path} is missing: the service runs from a bento that serving.build_bento made")
    return Release.from_json(read_json(path))


def address(variable: str) -> str:
    """The address of the store that `variable` names.

    Raises:
        BadInput: none is given.
    """
    url = os.environ.get(variable, "")
    if not url:
        raise BadInput(f"{variable} is not set: it holds the address of {STORES[variable]} (make up sets it)")
    return url

"""Reads the product's own conversations: a versioned snapshot, of which only consented ones become text.

A snapshot is a folder that is never changed once written; whoever withdraws consent is left out of the next one, and
the pin of the old one is taken out of the parameters. It holds

- `snapshot.json`: `{"format": 1}` and whatever else the exporter wants to note (when, from where, how many);
- `conversations*.jsonl` or `.jsonl.gz`: a row a conversation, `{"id": "…", "consent": true, "messages": [{"role":
  "user", "content": "…"}, …]}` with `system`, `user` and `assistant` turns, and a `date` where it is known; whatever
  else is in the row stays there. `consent` says whether its owner agreed to training; rows in which it is false may be
  there and are passed over.

Its pin is `core.digests.folder_sha256` of the folder. The licence is the source's, in the parameters.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, get_args

from pipelines.core.digests import folder_sha256
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import Row
from pipelines.core.records import Role
from pipelines.data.archives import Archive, Member
from pipelines.data.rows import Numbered, Quarantined

MANIFEST = "snapshot.json"
FORMAT = 1
WITHOUT_CONSENT = "without consent"
_NAMES = {"user": "User", "assistant": "Assistant"}  # a system turn is the operator's, the same in all of them


class _Snapshot:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def members(self) -> list[Member]:
        files = (*self._folder.glob("conversations*.jsonl"), *self._folder.glob("conversations*.jsonl.gz"))
        return [Member(file.name, file.stat().st_size) for file in sorted(files)]

    def open(self, path: str) -> IO[bytes]:
        return (self._folder / path).open("rb")


def require_snapshot(folder: Path, sha256: str, origin: str) -> None:
    """Check that a snapshot is there and is the one that is pinned.

    Raises:
        BadInput: there is no such folder, its hash is another, or it is no snapshot of this format.
    """
    if not folder.is_dir():
        raise BadInput(
            f"{origin}: there is no snapshot folder {folder}; export one, or bring it back with `dvc pull {folder}` "
            "where DVC tracks it"
        )
    if (found := folder_sha256(folder)) != sha256:
        raise BadInput(
            f"{origin}: the files of the snapshot have {found}, the parameters pin {sha256}; a snapshot never changes: "
            "pin the new one if you want it, otherwise bring the old one back"
        )
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (FileNotFoundError, ValueError) as error:
        raise BadInput(f"{origin}: {folder / MANIFEST} is missing or no JSON ({error}); export the snapshot") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BadInput(f"{origin}: {folder / MANIFEST} must say format {FORMAT}; export the snapshot again")


def open_snapshot(folder: Path) -> Archive:
    """The files of a snapshot that `require_snapshot` has let through."""
    return _Snapshot(folder)


def rendered(messages: object) -> str | None:
    """The turns of a conversation as plain text, without system turns; None when `messages` is no conversation."""
    if not isinstance(messages, list):
        return None
    turns = []
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in get_args(Role):
            return None
        if not isinstance(message.get("content"), str):
            return None
        if message["role"] in _NAMES and message["content"].strip():
            turns.append(f"{_NAMES[message['role']]}: {message['content'].strip()}")
    return "\n\n".join(turns)


def consented_rows(
    source: str, path: str, rows: Iterable[Numbered | Quarantined], passed_over: Counter[str]
) -> Iterator[Numbered | Quarantined]:
    """`rows` of a snapshot with their `text` instead of their messages; those without consent are only counted.

    A row without a mark is quarantined by its line, so that an exporter's mistake shows; no word of it goes anywhere.
    """
    for found in rows:
        if isinstance(found, Quarantined):
            yield found
            continue
        number, row = found
        if row.get("consent") is False:
            passed_over[WITHOUT_CONSENT] += 1
            continue
        if row.get("consent") is not True:
            yield Quarantined(source, path, number, "no mark of consent: `consent` must be true or false")
            continue
        text = rendered(row.get("messages"))
        if text is None or not isinstance(row.get("id"), str):
            yield Quarantined(source, path, number, "no conversation: `id` and `messages` of {role, content}")
            continue
        yield Numbered(number, _as_text(row, text))


def _as_text(row: Row, text: str) -> Row:
    """The row of a document; its `conversation` is what a later deletion looks for."""
    return {"text": text, "conversation": row["id"], "date": row.get("date")}

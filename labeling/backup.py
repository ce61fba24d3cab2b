"""The backup of what people submit: one file a batch, to which every version of every annotation is added once.

    python -m labeling.backup --port 8082

The command receives Label Studio's webhooks, so that a label is kept the moment it is submitted; `labeling.wait` and
`labeling.pull_annotations` add what no webhook brought. On the open-source server whoever can log in can delete a
project; what is in the backup and no longer on the server was deleted.
"""

import argparse
import fcntl
import hmac
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from labeling.client import ServerAnnotation, ServerTask, annotation_from
from pipelines.core import artifacts
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import Row, encode, read_rows
from pipelines.core.records import content_id

URL_VARIABLE = "LABEL_WEBHOOK_URL"  # where Label Studio reaches this command
TOKEN_VARIABLE = "LABEL_WEBHOOK_TOKEN"  # what it must say; anybody on the network could send labels otherwise
TOKEN_HEADER = "X-Colloquy-Token"
KEPT_OF_A_TASK = ("task_id", "batch_id", "shown_order", "guideline_version")
LARGEST_BODY = 50 * 2**20  # bytes; five responses of 8,000 characters are 0.1 MB


def path_of(batch_id: str) -> Path:
    """The backup of one batch, beside the workspaces of all runs."""
    return Path(os.environ.get("COLLOQUY_HOME", artifacts.RUN)) / "label-backups" / f"{batch_id}.jsonl"


def row_of(data: dict[str, Any], annotation: ServerAnnotation) -> Row:
    """One submission with what is needed to read it without the server."""
    return {"task": {key: data[key] for key in KEPT_OF_A_TASK}, "annotation": asdict(annotation)}


def rows_of(tasks: Iterable[ServerTask]) -> Iterator[Row]:
    """Every submission of `tasks`."""
    return (row_of(task.data, given) for task in tasks if "task_id" in task.data for given in task.annotations)


def keep(path: Path, rows: Iterable[Row]) -> int:
    """Add to the backup at `path` what it does not have yet; returns how much that was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as out:
        fcntl.flock(out, fcntl.LOCK_EX)
        known = {content_id({name: row[name] for name in ("task", "annotation")}) for row in read_rows(path)}
        new = [row for row in rows if content_id(row) not in known]
        out.write(b"".join(encode(row | {"kept_at": time.time()}) + b"\n" for row in new))
        out.flush()
        if new:
            os.fsync(out.fileno())
    return len(new)


def deleted(path: Path, tasks: Iterable[ServerTask]) -> dict[int, Row]:
    """The annotations of the backup at `path` that the server no longer has, by id, each in its last version.

    One that was put back has another id: what somebody said of a task is there when the server has it under any.
    """
    there: set[Any] = set()
    for row in rows_of(tasks):
        there |= {row["annotation"]["id"], _said(row)}
    kept = {row["annotation"]["id"]: row for row in read_rows(path)} if path.exists() else {}
    return {number: kept[number] for number in sorted(kept) if not {number, _said(kept[number])} & there}


def _said(row: Row) -> str:
    """Who says what of which task."""
    return content_id([row["task"]["task_id"], row["annotation"]["completed_by"], row["annotation"]["result"]])


def how_to_restore(annotations: Sequence[int], path: Path) -> str:
    """What to say of deleted `annotations`."""
    said = f"annotations {list(annotations)} were deleted in Label Studio"
    return f"{said}; `python -m labeling.restore {path}` puts them back"


def receive(body: bytes) -> int:
    """Keep the submission of one webhook call; returns how many versions were new.

    Raises:
        BadInput: the body is not what Label Studio sends for a submission of a batch.
    """
    try:
        sent = json.loads(body)
        row = row_of(sent["task"]["data"], annotation_from(sent["annotation"]))
        batch_id = row["task"]["batch_id"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"a webhook call without a submission of a batch: {error!r}") from error
    if not re.fullmatch(r"[0-9a-f]{16}", str(batch_id)):
        raise BadInput(f"a webhook call of batch {batch_id!r}, which is no batch id")
    return keep(path_of(batch_id), [row])


class Receiver(BaseHTTPRequestHandler):
    """Takes POSTs of Label Studio's webhooks; the server gives up after a second, so nothing else is done here."""

    token: str

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        given = self.headers.get(TOKEN_HEADER, "").encode()
        if not hmac.compare_digest(given, self.token.encode()) or size > LARGEST_BODY:
            self.send_error(403)
            return
        try:
            receive(self.rfile.read(size))
        except BadInput as error:
            self.log_error("%s", error)
            self.send_error(400)
            return
        self.send_response(204)
        self.end_headers()


def serve(host: str, port: int, token: str) -> ThreadingHTTPServer:
    """The server, bound and not started."""
    return ThreadingHTTPServer((host, port), type("TokenReceiver", (Receiver,), {"token": token}))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m labeling.backup", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    token = os.environ.get(TOKEN_VARIABLE)
    if not token:
        sys.exit(f"{TOKEN_VARIABLE} is not set; without it anybody could send labels")
    serve(arguments.host, arguments.port, token).serve_forever()


if __name__ == "__main__":
    main()

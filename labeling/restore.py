"""Puts labels back that were deleted in Label Studio, from the backup of their batch.

    python -m labeling.restore .colloquy/label-backups/<batch>.jsonl

Each is submitted again in the name of whoever gave it, in its last version, with the guideline version that it was
given under. Run again it adds nothing. Tasks that were deleted come back when a run pushes the batch again.
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

from labeling.backup import deleted
from labeling.client import LabelStudio, LabelStudioDown, ServerAnnotation
from labeling.project import Batch, find
from labeling.push_tasks import of_batch
from pipelines.core.errors import BadInput, ExitCode


class Restored(NamedTuple):
    """How many labels are back, and the ids of those whose task or author the server no longer has."""

    labels: int
    left: list[int]


def restore(client: LabelStudio, backup: Path) -> Restored:
    """Submit what `backup` has and its project on the server has not.

    Raises:
        BadInput: there is no such backup, or its batch has no project.
    """
    if not backup.is_file():
        raise BadInput(f"there is no backup {str(backup)!r}; `labeling.wait` writes them to label-backups")
    batch = Batch(backup.stem, guideline_version="", label_config_sha="", labelers="human")
    project = find(client, batch)
    if project is None:
        raise BadInput(f"{client.url} has no project {batch.title!r}: push the batch again first, then restore")
    tasks = list(client.tasks(project.id))
    there, _ = of_batch(tasks)
    users = client.users()
    left = []
    gone = deleted(backup, tasks)
    for number, row in gone.items():
        task, given = there.get(row["task"]["task_id"]), ServerAnnotation(**row["annotation"])
        if task is None or given.completed_by not in users:
            left.append(number)
            continue
        client.update_task(task.id, {"data": task.data | row["task"]})
        client.annotate(task.id, given.result, given.lead_time_s, given.completed_by, given.was_cancelled)
    return Restored(len(gone) - len(left), left)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m labeling.restore", description=__doc__)
    parser.add_argument("backup", type=Path)
    backup = parser.parse_args().backup
    try:
        with LabelStudio.from_environment() as client:
            restored = restore(client, backup)
    except (BadInput, LabelStudioDown) as error:
        print(f"restore: {error}", file=sys.stderr)
        sys.exit(ExitCode.BAD_INPUT)
    print(f"{restored.labels} labels put back")
    if restored.left:
        print(f"labels {restored.left} are left: their task or their author is gone; push the batch again")


if __name__ == "__main__":
    main()

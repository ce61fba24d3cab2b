"""The snapshot of what people submitted: every annotation of the batch, once, in canonical bytes.

In: artifacts/sample_completions (which batch), and the server in LABEL_STUDIO_URL. Out: annotations.jsonl, Annotation
rows sorted by task and annotation id, without names or times of day, so that an unchanged pull has unchanged bytes;
and progress.json, how much was asked for and how much is there.
"""

from typing import NamedTuple

from labeling.backup import deleted, how_to_restore, keep, path_of, rows_of
from labeling.client import LabelStudio
from labeling.progress import Progress, measure
from labeling.project import Batch, find
from labeling.snapshot import Snapshot, take
from pipelines.core import artifacts
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_rows, write_json, write_rows
from pipelines.core.stage import open_stage


class Pulled(NamedTuple):
    """What the server holds of a batch, and how far that is what was asked for."""

    snapshot: Snapshot
    progress: Progress
    deleted: list[int]  # annotations that were backed up and are gone


def pull(client: LabelStudio, batch: Batch, task_ids: list[str], min_lead_time_s: float) -> Pulled:
    """What the server holds of `batch`; each task says itself how many labels were asked for."""
    project = find(client, batch)
    if project is None:
        raise BadInput(f"{client.url} has no project {batch.title!r}: push the batch first (labeling.push_tasks)")
    tasks, users = list(client.tasks(project.id)), client.users()
    asked = {task.data.get("task_id"): task.data for task in tasks}
    plan = [{"task_id": name, "needed": 1, "assigned": []} | asked.get(name, {}) for name in task_ids]
    backup = path_of(batch.id)
    if batch.labelers == "human":
        keep(backup, rows_of(tasks))
    gone = list(deleted(backup, tasks)) if batch.labelers == "human" else []
    return Pulled(take(tasks, users, task_ids), measure(plan, tasks, users, min_lead_time_s), gone)


def main() -> None:
    with open_stage("pull_annotations") as stage, LabelStudio.from_environment() as client:
        batch = Batch.read(stage.params.labeling.labelers)
        task_ids = [row["id"] for row in read_rows(artifacts.LABEL_BATCH) if row["asked"]]
        snapshot, progress, gone = pull(client, batch, task_ids, stage.params.prepare_preferences.min_lead_time_s)
        annotations = snapshot.annotations
        if snapshot.deleted_tasks:
            print(f"{len(snapshot.deleted_tasks)} tasks were deleted in Label Studio: {snapshot.deleted_tasks[:10]}")
        if gone:
            print(how_to_restore(gone, path_of(batch.id)))
        if snapshot.foreign_tasks:
            print(f"{len(snapshot.foreign_tasks)} tasks in the project are not of this batch and are left out")
        write_rows(artifacts.ANNOTATIONS, (annotation.to_row() for annotation in annotations))
        write_json(artifacts.PROGRESS, progress.to_row())
        print(f"{len(annotations)} annotations of {len(task_ids)} tasks")
        simulated = sum(annotation.simulated for annotation in annotations)
        stage.write_metrics(
            {
                "annotations": float(len(annotations)),
                "tasks": float(len(task_ids)),
                "tasks_annotated": float(len({annotation.task_id for annotation in annotations})),
                "tasks_deleted": float(len(snapshot.deleted_tasks)),
                "annotations_deleted": float(len(gone)),
                "labelers": float(len({annotation.labeler for annotation in annotations})),
                "simulated_share": simulated / len(annotations) if annotations else 0.0,
            }
        )


if __name__ == "__main__":
    main()

"""People rank instead of programs: the run waits for them and goes on by itself; its model is not marked simulated."""

import time
from collections import Counter
from pathlib import Path

import pytest

from labeling.client import LabelStudio
from labeling.judgement import to_result
from labeling.simulated import judge
from pipelines.core import artifacts
from pipelines.core.jsonl import read_json, read_rows
from pipelines.core.records import LabelTask

from .conftest import Loop

pytestmark = pytest.mark.loop

PEOPLE = ("ada", "ben", "cleo")


def wait_for(path: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.5)


def test_people_rank_and_the_run_goes_on(loop: Loop) -> None:
    demo = loop.start("people", "LABELERS=human")
    workspace = loop.first.workspace.parent / "people"
    wait_for(workspace / artifacts.PUSHED, 180)
    pushed = read_json(workspace / artifacts.PUSHED)
    batch = {row["id"]: LabelTask.from_row(row) for row in read_rows(workspace / artifacts.LABEL_BATCH)}
    given: Counter[str] = Counter()
    url = loop.addresses["label_studio"]
    with LabelStudio(url, (loop.home / "secrets" / "label_studio_token").read_text().strip()) as admin:
        tokens = {name: admin.sign_up(f"{name}@example.org", "correct horse 7", name.title(), "") for name in PEOPLE}
        of_id = {task.data["task_id"]: task for task in admin.tasks(pushed["project_id"])}
    for name, token in tokens.items():
        with LabelStudio(url, token) as browser:
            for entry in pushed["tasks"]:
                task = of_id[entry["task_id"]]
                if given[entry["task_id"]] < entry["needed"]:
                    decision = judge(batch[entry["task_id"]], name, 1, 0.0)
                    browser.annotate(task.id, to_result(decision, task.data["shown_order"]), 20.0)
                    given[entry["task_id"]] += 1
    result = loop.finish("people", demo)
    assert result.summary["failures"] == [], result.output[-4000:]
    pairs = list(read_rows(result.workspace / artifacts.PREFERENCES_TRAIN))
    assert pairs and not any(pair["simulated"] for pair in pairs)
    assert "simulated" not in " ".join(result.summary["notes"])

"""What was deleted in Label Studio is put back from the backup, once, in its author's name."""

import pytest

from labeling.accounts import read_accounts
from labeling.backup import path_of, rows_of
from labeling.client import LabelStudio
from labeling.judgement import Judgement, to_result
from pipelines.core import artifacts
from pipelines.core.errors import ExitCode
from pipelines.core.jsonl import read_json
from tests.labeling.batches import batch, workspace

ORDER = Judgement((("m1",), ("m0", "m2"), ("m3",)), comment="naïve 🐝")


@pytest.fixture
def labelled(run, admin, label_studio, labelers_file, variables, tmp_path, monkeypatch):
    """A workspace whose batch has two labels by two people, backed up."""
    monkeypatch.setenv("COLLOQUY_HOME", variables["COLLOQUY_HOME"])
    root = workspace(tmp_path / "run", batch(13), "labeling.labelers=human")
    assert run(root, "labeling.push_tasks").returncode == 0
    pushed = read_json(root / artifacts.PUSHED)
    first, second, *_ = admin.tasks(pushed["project_id"])
    for account, task in zip(read_accounts(labelers_file), (first, second), strict=False):
        with LabelStudio(label_studio.url, account.token) as person:
            person.annotate(task.id, to_result(ORDER, task.data["shown_order"]), 9.5)
    assert run(root, "labeling.wait", "--once").returncode == ExitCode.NOT_YET
    yield root
    admin._call("DELETE", f"/api/projects/{pushed['project_id']}/", "a deletion")


def labels(admin, root):
    """Who said what of which task, and how long it took, in an order of its own."""
    rows = rows_of(admin.tasks(read_json(root / artifacts.PUSHED)["project_id"]))
    keys = ("completed_by", "lead_time_s", "was_cancelled", "result")
    return sorted(([row["task"], *(row["annotation"][key] for key in keys)] for row in rows), key=str)


def test_a_deleted_label_comes_back_once(run, admin, labelled):
    before = labels(admin, labelled)
    project = read_json(labelled / artifacts.PUSHED)
    gone = next(admin.tasks(project["project_id"])).annotations[0].id
    admin._call("DELETE", f"/api/annotations/{gone}/", "a deletion")
    backup = path_of(project["batch_id"])
    assert f"python -m labeling.restore {backup}" in run(labelled, "labeling.wait", "--once").stdout
    assert run(labelled, "labeling.restore", str(backup)).stdout == "1 labels put back\n"
    assert labels(admin, labelled) == before
    assert run(labelled, "labeling.restore", str(backup)).stdout == "0 labels put back\n"
    assert "deleted" not in run(labelled, "labeling.wait", "--once").stdout
    pulled = run(labelled, "labeling.pull_annotations")
    assert (pulled.returncode, "deleted" in pulled.stdout) == (0, False)


def test_labels_of_a_deleted_task_come_back_after_a_push(run, admin, labelled):
    before = labels(admin, labelled)
    project = read_json(labelled / artifacts.PUSHED)
    backup = path_of(project["batch_id"])
    lost = next(admin.tasks(project["project_id"]))
    admin.delete_task(lost.id)
    assert f"labels [{lost.annotations[0].id}] are left" in run(labelled, "labeling.restore", str(backup)).stdout
    assert run(labelled, "labeling.push_tasks").returncode == 0
    assert "1 labels put back" in run(labelled, "labeling.restore", str(backup)).stdout
    assert labels(admin, labelled) == before


def test_what_is_no_backup_is_said(run, labelled, tmp_path):
    missing = run(labelled, "labeling.restore", str(tmp_path / "gone.jsonl"))
    assert missing.returncode == ExitCode.BAD_INPUT
    assert "there is no backup" in missing.stderr
    unknown = tmp_path / f"{'9' * 16}.jsonl"
    unknown.touch()
    assert "push the batch again first" in run(labelled, "labeling.restore", str(unknown)).stderr

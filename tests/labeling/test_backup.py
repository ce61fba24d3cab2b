"""What people submit is kept as it comes in, by webhook and by looking, and what is deleted is noticed."""

import json
import threading
import time
from dataclasses import replace

import httpx
import pytest

from labeling.backup import TOKEN_HEADER, deleted, keep, path_of, receive, row_of, rows_of, serve
from labeling.client import ServerAnnotation, ServerTask
from labeling.judgement import Judgement, to_result
from pipelines.core import artifacts
from pipelines.core.errors import BadInput, ExitCode
from pipelines.core.jsonl import read_json, read_rows
from tests.labeling.batches import batch, workspace

BATCH = "0123456789abcdef"
DATA = {"task_id": "t", "batch_id": BATCH, "shown_order": ["m0", "m1"], "guideline_version": "1"}


def given(number, order=("m1", "m0")):
    return ServerAnnotation(
        number, 1, False, 9.0, tuple(to_result(Judgement(tuple((n,) for n in order)), DATA["shown_order"]))
    )


def test_each_version_of_an_annotation_is_kept_once(tmp_path):
    path = tmp_path / "backup.jsonl"
    task = ServerTask(1, DATA, 1, True, (given(1), given(2)))
    assert keep(path, rows_of([task])) == 2
    assert keep(path, rows_of([task])) == 0
    assert keep(path, [row_of(DATA, given(1, ("m0", "m1")))]) == 1
    assert [row["annotation"]["id"] for row in read_rows(path)] == [1, 2, 1]
    assert all(row["task"]["task_id"] == "t" for row in read_rows(path))


def test_what_the_server_no_longer_has_was_deleted(tmp_path):
    path = tmp_path / "backup.jsonl"
    assert deleted(path, []) == {}
    by = {number: replace(given(number), completed_by=number) for number in (3, 1, 2)}
    keep(path, [row_of(DATA, one) for one in by.values()])
    assert list(deleted(path, [ServerTask(1, DATA, 1, True, (by[2],))])) == [1, 3]


def test_the_last_version_of_what_was_deleted_is_known(tmp_path):
    path = tmp_path / "backup.jsonl"
    first, last = given(1), given(1, ("m0", "m1"))
    keep(path, [row_of(DATA, first), row_of(DATA, last)])
    assert deleted(path, [])[1]["annotation"]["result"] == list(last.result)
    put_back = replace(last, id=9)
    assert deleted(path, [ServerTask(1, DATA, 1, True, (put_back,))]) == {}


def sent(**changed):
    annotation = {"id": 7, "completed_by": 1, "was_cancelled": False, "lead_time": 3.5, "result": []}
    return json.dumps(
        {"action": "ANNOTATION_CREATED", "task": {"data": DATA | changed}, "annotation": annotation}
    ).encode()


def test_a_webhook_call_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("COLLOQUY_HOME", str(tmp_path))
    assert receive(sent()) == 1
    assert [row["annotation"]["id"] for row in read_rows(path_of(BATCH))] == [7]


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", sent(batch_id="../../else"), sent(batch_id=3)])
def test_a_call_that_is_no_submission_is_refused(tmp_path, monkeypatch, body):
    monkeypatch.setenv("COLLOQUY_HOME", str(tmp_path))
    with pytest.raises(BadInput, match="a webhook call"):
        receive(body)
    assert not list(tmp_path.iterdir())


def test_the_receiver_takes_calls_with_its_token_only(tmp_path, monkeypatch):
    monkeypatch.setenv("COLLOQUY_HOME", str(tmp_path))
    with serve("127.0.0.1", 0, "secret") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert httpx.post(url, content=sent()).status_code == 403
        assert httpx.post(url, content=sent(), headers={TOKEN_HEADER: "guess"}).status_code == 403
        assert httpx.post(url, content=b"{", headers={TOKEN_HEADER: "secret"}).status_code == 400
        assert httpx.post(url, content=sent(), headers={TOKEN_HEADER: "secret"}).status_code == 204
        server.shutdown()
    assert len(list(read_rows(path_of(BATCH)))) == 1


def test_the_server_sends_what_people_submit(run, admin, variables, tmp_path, monkeypatch):
    """Loopback is opened for this server's webhooks; by default Label Studio calls no such address."""
    monkeypatch.setenv("COLLOQUY_HOME", variables["COLLOQUY_HOME"])
    root = workspace(tmp_path / "run", batch(3, responses=5), "labeling.labelers=human")
    with serve("127.0.0.1", 0, "secret") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = {"LABEL_WEBHOOK_URL": f"http://127.0.0.1:{server.server_port}/", "LABEL_WEBHOOK_TOKEN": "secret"}
        for _ in range(2):
            assert run(root, "labeling.push_tasks", **address).returncode == 0
        project = read_json(root / artifacts.PUSHED)["project_id"]
        assert len(admin._call("GET", "/api/webhooks/", "webhooks", params={"project": project})) == 1
        entry = next(admin.tasks(project))
        admin.annotate(entry.id, to_result(Judgement((("m1",), ("m0",))), entry.data["shown_order"]), 9.0)
        backup = path_of(read_json(root / artifacts.PUSHED)["batch_id"])
        deadline = time.monotonic() + 60
        while not backup.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        server.shutdown()
    (row,) = read_rows(backup)
    assert row["task"]["task_id"] == entry.data["task_id"]


def test_a_look_backs_up_and_names_what_was_deleted(run, admin, variables, tmp_path, monkeypatch):
    monkeypatch.setenv("COLLOQUY_HOME", variables["COLLOQUY_HOME"])
    root = workspace(tmp_path / "run", batch(4, responses=6), "labeling.labelers=human")
    assert run(root, "labeling.push_tasks").returncode == 0
    pushed = read_json(root / artifacts.PUSHED)
    entry, *_ = admin.tasks(pushed["project_id"])
    admin.annotate(entry.id, to_result(Judgement((("m1",), ("m0",))), entry.data["shown_order"]), 9.0)
    looked = run(root, "labeling.wait", "--once")
    assert looked.returncode == ExitCode.NOT_YET
    assert "deleted" not in looked.stdout
    (kept,) = (row["annotation"]["id"] for row in read_rows(path_of(pushed["batch_id"])))
    admin._call("DELETE", f"/api/annotations/{kept}/", "a deletion")
    assert f"annotations [{kept}] were deleted in Label Studio" in run(root, "labeling.wait", "--once").stdout
    pulled = run(root, "labeling.pull_annotations")
    assert f"annotations [{kept}] were deleted" in pulled.stdout
    assert read_json(root / artifacts.metrics_of("pull_annotations"))["annotations_deleted"] == 1


def test_a_project_that_somebody_deleted_is_said(run, admin, tmp_path):
    root = workspace(tmp_path / "run", batch(5, responses=6), "labeling.labelers=human")
    assert run(root, "labeling.push_tasks").returncode == 0
    project = read_json(root / artifacts.PUSHED)["project_id"]
    admin._call("DELETE", f"/api/projects/{project}/", "a deletion")
    looked = run(root, "labeling.wait", "--once")
    assert looked.returncode == ExitCode.BAD_INPUT
    assert f"the tasks of project {project}" in looked.stderr

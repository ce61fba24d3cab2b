"""The batch's way to people and back, on a real server."""

import json
import os
import subprocess
import sys
import time

from labeling.client import LabelStudio
from labeling.judgement import Judgement, to_result
from pipelines.core import artifacts
from pipelines.core.errors import ExitCode
from pipelines.core.jsonl import read_json, write_json
from tests.labeling.batches import AWKWARD, batch, task, workspace, write_batch

PUSH, LOOK = ("labeling.push_tasks",), ("labeling.wait", "--once")


def server_tasks(admin, root):
    return list(admin.tasks(read_json(root / artifacts.PUSHED)["project_id"]))


def test_pushing_twice_changes_nothing(run, admin, tmp_path):
    root = workspace(tmp_path / "run", batch(7), "labeling.overlap_share=0.3")
    first = run(root, *PUSH)
    assert first.returncode == 0, first.stderr
    receipt = (root / artifacts.PUSHED).read_bytes()
    tasks = server_tasks(admin, root)
    second = run(root, *PUSH)
    assert "0 tasks added, 7 were there" in second.stdout
    assert (root / artifacts.PUSHED).read_bytes() == receipt
    assert server_tasks(admin, root) == tasks
    assert sorted(entry.overlap for entry in tasks) == [1, 1, 1, 1, 1, 3, 3]
    assert all(len(entry.data["assigned"]) == entry.overlap == entry.data["needed"] for entry in tasks)


def test_a_push_that_was_cut_off_leaves_no_gap_and_no_duplicate(run, admin, tmp_path):
    everything = batch(9)
    root = workspace(tmp_path / "run", everything)
    assert run(root, *PUSH).returncode == 0
    project = read_json(root / artifacts.PUSHED)["project_id"]
    for entry in server_tasks(admin, root)[4:]:
        admin._call("DELETE", f"/api/tasks/{entry.id}/", "a deletion")
    looked = run(root, *LOOK, LABELERS_FILE="")
    assert looked.returncode == ExitCode.BAD_INPUT
    assert "5 tasks added, 4 were there" in run(root, *PUSH).stdout
    ids = [entry.data["task_id"] for entry in admin.tasks(project)]
    assert sorted(ids) == sorted(entry.id for entry in everything)


def imported(admin, batch_id):
    """How many tasks the server has of a batch."""
    found = admin._call("GET", "/api/projects/", "the projects", params={"title": f"Rank responses {batch_id[:8]}"})
    return found["results"][0]["task_number"] if found["results"] else 0


def test_a_push_that_was_killed_between_two_imports_is_completed_by_the_next(run, admin, variables, tmp_path):
    everything = batch(1300)  # three requests
    root = workspace(tmp_path / "run", everything, "labeling.labelers=human")
    batch_id = read_json(root / artifacts.LABEL_BATCH_MANIFEST)["batch_id"]
    environment = os.environ | variables | {"PYTHONPATH": str(root)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    with subprocess.Popen([sys.executable, "-m", *PUSH], cwd=root, env=environment) as pushing:
        while imported(admin, batch_id) == 0:
            assert pushing.poll() is None, "the push ended before it could be killed"
            time.sleep(0.01)
        pushing.kill()
    assert imported(admin, batch_id) < 1300
    pushed = run(root, *PUSH)
    assert pushed.returncode == 0, pushed.stderr
    entries = server_tasks(admin, root)
    assert sorted(entry.data["task_id"] for entry in entries) == sorted(entry.id for entry in everything)
    assert all(entry.overlap == entry.data["needed"] for entry in entries)


def test_tasks_that_a_lost_import_stored_after_all_are_not_kept_twice(run, admin, tmp_path):
    root = workspace(tmp_path / "run", batch(8), "labeling.labelers=human", "labeling.overlap_share=0")
    assert run(root, *PUSH).returncode == 0
    first, *_ = server_tasks(admin, root)
    project = read_json(root / artifacts.PUSHED)["project_id"]
    admin.annotate(first.id, to_result(Judgement((("m0",), ("m1",))), first.data["shown_order"]), 9.0)
    admin.import_tasks(project, [entry.data for entry in server_tasks(admin, root)])
    admin.delete_task(server_tasks(admin, root)[3].id)
    admin.delete_task(server_tasks(admin, root)[10].id)  # of this one both are gone
    assert "1 tasks added, 7 were there" in run(root, *PUSH).stdout
    entries = server_tasks(admin, root)
    assert len({entry.data["task_id"] for entry in entries}) == len(entries) == 8
    assert [entry.id for entry in entries if entry.annotations] == [first.id]


def test_tasks_for_several_people_come_first(run, admin, tmp_path):
    root = workspace(tmp_path / "run", batch(11), "labeling.labelers=human", "labeling.overlap_share=0.3")
    assert run(root, *PUSH).returncode == 0
    project = read_json(root / artifacts.PUSHED)["project_id"]
    overlaps = []
    for _ in range(5):
        asked = admin._call("GET", f"/api/projects/{project}/next", "next")
        overlaps.append(asked["overlap"])
        order = tuple((name,) for name in reversed(asked["data"]["shown_order"]))
        admin.annotate(asked["id"], to_result(Judgement(order), asked["data"]["shown_order"]), 9.0)
    assert overlaps == [3, 3, 3, 1, 1]


def test_labels_that_disagree_hold_the_round_until_people_agree(run, admin, labelers_file, tmp_path):
    settings = ["labeling.labelers=human", "labeling.overlap_share=1", "labeling.overlap_labelers=2"]
    root = workspace(tmp_path / "run", batch(12), *settings, "prepare_preferences.min_agreement=0.6")
    assert run(root, *PUSH).returncode == 0
    accounts = json.loads(labelers_file.read_text())
    people = [LabelStudio(admin.url, row["token"]) for row in accounts]
    first = min(row["email"] for row in accounts[:2])
    orders = (("m0", "m1", "m2", "m3"), ("m3", "m2", "m1", "m0"), ("m0", "m1", "m2", "m3"))

    def rank(person, order, entries):
        for entry in entries:
            judgement = Judgement(tuple((name,) for name in order))
            person.annotate(entry.id, to_result(judgement, entry.data["shown_order"]), 20.0)

    everything = server_tasks(admin, root)
    for person, order in zip(people[:2], orders, strict=False):
        rank(person, order, everything)
    looked = run(root, *LOOK)
    assert looked.returncode == ExitCode.NOT_YET
    assert "labelers agree on 0.0% of the pairs of 12 tasks, under the floor" in looked.stdout
    assert f"task {everything[0].id}: 0% alike, ranked by {first}" in looked.stdout
    assert any("under the floor" in line for line in read_json(root / artifacts.WAITING)["says"])
    reopened = server_tasks(admin, root)
    assert all((entry.overlap, entry.is_labeled) == (3, False) for entry in reopened)
    assert run(root, *LOOK).returncode == ExitCode.NOT_YET
    assert server_tasks(admin, root) == reopened

    rank(people[2], orders[2], everything)
    assert run(root, *LOOK).returncode == ExitCode.NOT_YET  # one of three pairs of labelers agrees
    for entry in server_tasks(admin, root):  # the second sees that he held the scale upside down
        upside_down = entry.annotations[1]
        right = to_result(Judgement(tuple((name,) for name in orders[0])), entry.data["shown_order"])
        people[1]._call("PATCH", f"/api/annotations/{upside_down.id}/", "an update", json={"result": right})
    assert run(root, *LOOK).returncode == ExitCode.OK


def test_guidelines_that_changed_reach_the_tasks_that_wait(run, admin, tmp_path):
    root = workspace(tmp_path / "run", batch(3), "labeling.labelers=human", "labeling.overlap_share=0")
    assert run(root, *PUSH).returncode == 0
    labelled = server_tasks(admin, root)[0]
    admin.annotate(labelled.id, to_result(Judgement((("m0",), ("m1",))), labelled.data["shown_order"]), 9.0)
    manifest = read_json(root / artifacts.LABEL_BATCH_MANIFEST)
    write_json(root / artifacts.LABEL_BATCH_MANIFEST, manifest | {"guideline_version": "2"})
    assert run(root, *PUSH).returncode == 0
    versions = {entry.id: entry.data["guideline_version"] for entry in server_tasks(admin, root)}
    assert versions.pop(labelled.id) == "1"
    assert set(versions.values()) == {"2"}


def test_simulated_labelers_do_their_share_through_their_own_accounts(run, admin, tmp_path):
    root = workspace(tmp_path / "run", [*batch(6), task("awkward", AWKWARD)], "labeling.overlap_share=0.5")
    assert run(root, *PUSH).returncode == 0
    looked = run(root, *LOOK)
    assert looked.returncode == ExitCode.OK, looked.stderr
    assert "labels: 15 of 15, tasks: 7 of 7" in looked.stdout
    users = admin.users()
    for entry in server_tasks(admin, root):
        who = sorted(users[given.completed_by].email for given in entry.annotations)
        assert who == entry.data["assigned"]
    before = server_tasks(admin, root)
    assert run(root, *LOOK).returncode == ExitCode.OK
    assert server_tasks(admin, root) == before


def test_a_complete_batch_is_not_asked_again_in_another_run(run, admin, tmp_path):
    tasks = batch(5)
    first = workspace(tmp_path / "first", tasks)
    assert run(first, *PUSH).returncode == 0
    assert run(first, *LOOK).returncode == ExitCode.OK
    second = workspace(tmp_path / "second", tasks)
    assert "0 tasks added, 5 were there" in run(second, *PUSH).stdout
    before = server_tasks(admin, second)
    assert run(second, *LOOK).returncode == ExitCode.OK
    assert server_tasks(admin, second) == before


def test_people_are_asked_although_simulated_labelers_ranked_the_same_batch(run, tmp_path):
    tasks = batch(2, responses=5)
    simulated = workspace(tmp_path / "simulated", tasks)
    assert run(simulated, *PUSH).returncode == 0
    assert run(simulated, *LOOK).returncode == ExitCode.OK
    human = workspace(tmp_path / "human", tasks, "labeling.labelers=human")
    assert run(human, *PUSH).returncode == 0
    looked = run(human, *LOOK)
    assert looked.returncode == ExitCode.NOT_YET
    assert "labels: 0 of" in looked.stdout


def test_an_untouched_fast_submit_gives_the_task_to_somebody_else(run, admin, labelers_file, tmp_path):
    alone = ("labeling.labelers=human", "labeling.overlap_share=0", "prepare_preferences.min_agreement=0")
    root = workspace(tmp_path / "run", batch(1, responses=6), *alone)
    assert run(root, *PUSH).returncode == 0
    (entry,) = server_tasks(admin, root)
    shown = entry.data["shown_order"]
    admin.annotate(entry.id, to_result(Judgement(tuple((name,) for name in shown)), shown), 0.7)
    looked = run(root, *LOOK)
    assert looked.returncode == ExitCode.NOT_YET
    assert "does not count (untouched)" in looked.stdout
    (entry,) = server_tasks(admin, root)
    assert (entry.overlap, entry.is_labeled) == (2, False)
    token = json.loads(labelers_file.read_text())[0]["token"]
    with LabelStudio(admin.url, token) as other:
        next_task = other._call("GET", f"/api/projects/{read_json(root / artifacts.PUSHED)['project_id']}/next", "next")
        assert next_task["id"] == entry.id
        other.annotate(entry.id, to_result(Judgement(tuple((name,) for name in shown[::-1])), shown), 9.0)
    assert run(root, *LOOK).returncode == ExitCode.OK


def test_a_deadline_that_passed_ends_the_run_with_the_reason(run, tmp_path):
    root = workspace(tmp_path / "run", batch(4, responses=5), "labeling.labelers=human")
    assert run(root, *PUSH).returncode == 0
    receipt = read_json(root / artifacts.PUSHED)
    write_json(root / artifacts.PUSHED, receipt | {"pushed_at": receipt["pushed_at"] - 73 * 3600})
    looked = run(root, *LOOK)
    assert looked.returncode == ExitCode.BAD_INPUT
    assert "labeling.deadline_hours=72 has passed" in looked.stderr
    assert "deadline" in read_json(root / artifacts.FAILURES / "wait.json")["error"]


def test_a_wrong_token_is_refused_with_its_file_named(run, tmp_path):
    root = workspace(tmp_path / "run", batch(1))
    (tmp_path / "token").write_text("0" * 40)
    pushed = run(root, *PUSH, LABEL_STUDIO_TOKEN_FILE=str(tmp_path / "token"))
    assert pushed.returncode == ExitCode.BAD_INPUT
    assert "does not accept the token" in pushed.stderr


def test_a_label_config_that_the_server_refuses_is_said(run, tmp_path):
    root = workspace(tmp_path / "run", batch(2, responses=3))
    (root / "labeling" / "label_config.xml").write_text("<View><Ranker name='r' toName='nothing'/></View>")
    stale = run(root, *PUSH)
    assert stale.returncode == ExitCode.BAD_INPUT
    assert "run sample_completions again" in stale.stderr
    write_batch(root, batch(2, responses=3))
    pushed = run(root, *PUSH)
    assert pushed.returncode == ExitCode.BAD_INPUT
    assert "refuses project 'Rank responses" in pushed.stderr
    assert "label_config" in pushed.stderr


def test_waiting_goes_on_while_the_server_is_down(run, tmp_path):
    root = workspace(tmp_path / "run", batch(1, responses=5), "labeling.labelers=human")
    assert run(root, *PUSH).returncode == 0
    looked = run(root, *LOOK, LABEL_STUDIO_URL="http://127.0.0.1:9")
    assert looked.returncode == ExitCode.NOT_YET
    assert "does not answer" in looked.stderr

import json
from concurrent.futures import ThreadPoolExecutor

from labeling.assignment import Assignment
from labeling.client import LabelStudio, ServerAnnotation, ServerTask, User
from labeling.judgement import Judgement, to_result
from labeling.project import Batch
from labeling.pull_annotations import pull
from labeling.push_tasks import push
from labeling.snapshot import pseudonym, take
from pipelines.core import artifacts
from pipelines.core.errors import ExitCode
from pipelines.core.jsonl import read_json, read_rows
from pipelines.core.records import Annotation
from tests.labeling.batches import AWKWARD, batch, task, workspace

ANN, SIM = User(1, "ann@example.org"), User(2, "labeler-1@simulated.invalid")
USERS = {user.id: user for user in (ANN, SIM)}
SHOWN = ["m0", "m1"]


def submitted(number, user, ranking=(("m1",), ("m0",)), **other):
    fields = {"was_cancelled": False, "lead_time_s": 3.14159} | other
    return ServerAnnotation(number, user.id, result=tuple(to_result(Judgement(ranking), SHOWN)), **fields)


def server_task(number, *annotations):
    data = {"task_id": f"t{number}", "shown_order": SHOWN, "guideline_version": "7"}
    return ServerTask(number, data, 1, True, annotations)


def test_every_annotation_is_kept_in_one_order_under_pseudonyms():
    tasks = [server_task(2, submitted(5, SIM)), server_task(1, submitted(9, ANN), submitted(3, ANN))]
    annotations = take(tasks, USERS, ["t1", "t2"]).annotations
    assert [(entry.task_id, entry.annotation_id) for entry in annotations] == [("t1", 3), ("t1", 9), ("t2", 5)]
    assert [entry.simulated for entry in annotations] == [False, False, True]
    assert annotations[0].labeler == annotations[1].labeler == pseudonym(ANN)
    assert ANN.email not in str(annotations[0].to_row())
    assert annotations[0].lead_time_s == 3.142
    assert annotations[0].guideline_version == "7"


def test_a_skipped_task_is_kept_without_an_order():
    (entry,) = take([server_task(1, submitted(1, ANN, was_cancelled=True))], USERS, ["t1"]).annotations
    assert (entry.ranking, entry.flags) == ((), ("skipped",))


def test_an_order_that_names_a_response_twice_is_kept_as_none():
    broken = ServerAnnotation(1, 1, False, 3.0, tuple(to_result(Judgement((("m0",), ("m0",))), SHOWN)))
    (entry,) = take([server_task(1, broken)], USERS, ["t1"]).annotations
    assert entry.ranking == ()


def test_deleted_and_foreign_tasks_are_named():
    snapshot = take([server_task(1), ServerTask(8, {"text": "by hand"}, 1, False, ())], USERS, ["t1", "t2"])
    assert snapshot.deleted_tasks == ["t2"]
    assert snapshot.foreign_tasks == [8]


def test_labels_of_a_deleted_account_are_kept():
    (entry,) = take([server_task(1, submitted(1, User(77, "x@y.z")))], USERS, ["t1"]).annotations
    assert entry.labeler.startswith("labeler-")


def test_pulling_twice_gives_the_same_bytes(command, tmp_path):
    root = workspace(tmp_path / "run", batch(6, responses=5), "labeling.overlap_share=0.5")
    assert command(root, "labeling.push_tasks").returncode == 0
    assert command(root, "labeling.wait", "--once").returncode == 0
    pulled = []
    for _ in range(2):
        done = command(root, "labeling.pull_annotations")
        assert done.returncode == 0, done.stderr
        pulled.append((root / artifacts.ANNOTATIONS).read_bytes())
    assert pulled[0] == pulled[1]
    annotations = [Annotation.from_row(row) for row in read_rows(root / artifacts.ANNOTATIONS)]
    assert len(annotations) == 12
    assert all(entry.simulated and entry.ranking and entry.lead_time_s > 2 for entry in annotations)
    assert read_json(root / artifacts.metrics_of("pull_annotations"))["simulated_share"] == 1
    assert read_json(root / artifacts.PROGRESS) == {"labels": 12, "labels_needed": 12, "tasks": 6, "tasks_needed": 6}


def test_a_batch_that_was_never_pushed_can_not_be_pulled(run, tmp_path):
    root = workspace(tmp_path / "run", batch(3, responses=6))
    done = run(root, "labeling.pull_annotations")
    assert done.returncode == ExitCode.BAD_INPUT
    assert "push the batch first" in done.stderr


def test_a_pull_during_labelling_loses_nothing(admin, labelers_file, tmp_path, monkeypatch):
    """Every pull has what was submitted before it began, while labelers submit and tasks are deleted behind it."""
    everything = batch(150, responses=5)
    root = workspace(tmp_path / "run", everything)
    monkeypatch.chdir(root)
    pushed = Batch.read("human")
    assignments = [Assignment(entry.id, 1, ()) for entry in everything]
    project = push(admin, pushed, everything, assignments)
    there = list(admin.tasks(project.id))
    doomed = [entry.id for entry in there[::40]]
    ids = [entry.id for entry in everything]
    submitted: list[int] = []

    def work(token, share):
        with LabelStudio(admin.url, token) as labeler:
            for entry in share:
                order = tuple((name,) for name in reversed(entry.data["shown_order"]))
                labeler.annotate(entry.id, to_result(Judgement(order), entry.data["shown_order"]), 9.0)
                submitted.append(entry.data["task_id"])

    tokens = [row["token"] for row in json.loads(labelers_file.read_text())][:2]
    left = [entry for entry in there if entry.id not in doomed]
    with ThreadPoolExecutor(3) as threads:
        working = [threads.submit(work, token, left[place::2]) for place, token in enumerate(tokens)]
        working.append(threads.submit(lambda: [admin.delete_task(task_id) for task_id in doomed]))
        while not all(one.done() for one in working):
            before = set(submitted)
            assert before <= {entry.task_id for entry in pull(admin, pushed, ids, 2.0).snapshot.annotations}
        for one in working:
            one.result()
    last = pull(admin, pushed, ids, 2.0).snapshot
    assert len(last.annotations) == len(left)
    assert len(last.deleted_tasks) == len(doomed)


def test_whatever_people_and_models_write_comes_back_as_it_was(admin, tmp_path, monkeypatch):
    awkward = task("عربي", [*AWKWARD, "word " * 1600], question="`code` <b>& عربي 🐝")
    root = workspace(tmp_path / "run", [awkward])
    monkeypatch.chdir(root)
    pushed = Batch.read("human")
    project = push(admin, pushed, [awkward], [Assignment(awkward.id, 1, ())])
    (entry,) = admin.tasks(project.id)
    texts = {response["id"]: response["body"] for response in entry.data["responses"]}
    assert texts == {completion.id: completion.text for completion in awkward.completions}
    assert len(texts["m5"]) == 8000
    said = Judgement((("m5", "m2"), ("m0",), ("m1",), ("m4",), ("m3",)), comment="שלום\n```x```\n🐝")
    admin.annotate(entry.id, to_result(said, entry.data["shown_order"]), 9.0)
    (pulled,) = pull(admin, pushed, [awkward.id], 2.0).snapshot.annotations
    assert (pulled.ranking, pulled.comment) == (said.ranking, said.comment)

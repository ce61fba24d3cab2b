import pytest

from labeling.client import ServerAnnotation, ServerTask, User
from labeling.judgement import Judgement, to_result
from labeling.wait import measure, verdict
from pipelines.core.config import parse, resolve
from pipelines.core.errors import BadInput, ExitCode
from tests.labeling.batches import ROOT

SHOWN = ["m0", "m1", "m2", "m3"]
USERS = {1: User(1, "ann@example.org"), 2: User(2, "bob@example.org")}
PARAMS = parse(resolve(ROOT, "tiny", ["labeling.deadline_hours=2", "labeling.min_complete_share=0.75"]), "test")


def submitted(number, user, order=("m1", "m0", "m2", "m3"), lead_time_s=20.0, was_cancelled=False):
    result = to_result(Judgement(tuple((name,) for name in order)), SHOWN)
    return ServerAnnotation(number, user, was_cancelled, lead_time_s, tuple(result))


def server_task(number, *annotations):
    data = {"task_id": f"t{number}", "shown_order": SHOWN, "guideline_version": "1"}
    return ServerTask(number, data, 1, False, annotations)


def pushed(*needed, pushed_at=0.0):
    tasks = [{"task_id": f"t{i}", "needed": count, "assigned": []} for i, count in enumerate(needed)]
    return {"tasks": tasks, "pushed_at": pushed_at, "url": "http://there/projects/1/data", "project_id": 1}


def test_labels_are_counted_up_to_what_each_task_needs():
    tasks = [server_task(0, submitted(1, 1), submitted(2, 2)), server_task(1)]
    progress = measure(pushed(1, 2), tasks, USERS, 2.0)
    assert (progress.done, progress.needed) == (1, 3)


def test_one_labeler_counts_once_per_task():
    progress = measure(pushed(2), [server_task(0, submitted(1, 1), submitted(2, 1))], USERS, 2.0)
    assert progress.done == 1


def test_an_untouched_fast_submit_counts_as_unlabeled():
    hasty = submitted(1, 1, order=SHOWN, lead_time_s=1.0)
    progress = measure(pushed(1, 1), [server_task(0, hasty), server_task(1, submitted(2, 2))], USERS, 2.0)
    assert progress.done == 1
    assert progress.tasks[0].not_counted == (("ann@example.org", "untouched"),)


def test_a_skipped_task_counts_as_unlabeled():
    progress = measure(pushed(1), [server_task(0, submitted(1, 1, was_cancelled=True))], USERS, 2.0)
    assert progress.tasks[0].not_counted == (("ann@example.org", "skipped"),)


def test_a_deleted_task_is_named_and_still_needed():
    progress = measure(pushed(1, 1), [server_task(1, submitted(1, 1))], USERS, 2.0)
    assert progress.deleted == ("t0",)
    assert (progress.done, progress.needed) == (1, 2)


def progress_of(done):
    tasks = [server_task(i, *([submitted(i, 1)] if i < done else [])) for i in range(4)]
    return measure(pushed(1, 1, 1, 1), tasks, USERS, 2.0)


def test_all_labels_are_enough_at_once():
    assert verdict(progress_of(4), pushed(1, 1, 1, 1), PARAMS, 1.0) is ExitCode.OK


def test_before_the_deadline_fewer_are_not_yet_enough():
    assert verdict(progress_of(3), pushed(1, 1, 1, 1), PARAMS, 7199.0) is ExitCode.NOT_YET


def test_at_the_deadline_the_minimum_is_enough():
    assert verdict(progress_of(3), pushed(1, 1, 1, 1), PARAMS, 7200.0) is ExitCode.OK


def test_after_the_deadline_fewer_end_the_run_with_the_numbers():
    with pytest.raises(BadInput, match=r"2 of 4 labels \(50%\).*deadline_hours=2 .*min_complete_share=0.75"):
        verdict(progress_of(2), pushed(1, 1, 1, 1), PARAMS, 7200.0)

import pytest

from labeling.client import ServerAnnotation, ServerTask, User
from labeling.judgement import Judgement, to_result
from labeling.progress import Disagreement, disagreement, whom_to_ask
from labeling.progress import measure as measure_plan
from labeling.wait import ask_for_more, verdict
from pipelines.core.config import parse, resolve
from pipelines.core.errors import BadInput, ExitCode
from tests.labeling.batches import ROOT

SHOWN = ["m0", "m1", "m2", "m3"]
USERS = {1: User(1, "ann@example.org"), 2: User(2, "bob@example.org")}
SETTINGS = ["labeling.deadline_hours=2", "labeling.min_complete_share=0.75"]
UNCHECKED = parse(resolve(ROOT, "tiny", [*SETTINGS, "prepare_preferences.min_agreement=0"]), "test")
PARAMS = parse(resolve(ROOT, "tiny", [*SETTINGS, "prepare_preferences.min_agreement=0.6"]), "test")


def submitted(number, user, order=("m1", "m0", "m2", "m3"), lead_time_s=20.0, was_cancelled=False):
    result = to_result(Judgement(tuple((name,) for name in order)), SHOWN)
    return ServerAnnotation(number, user, was_cancelled, lead_time_s, tuple(result))


def server_task(number, *annotations):
    data = {"task_id": f"t{number}", "shown_order": SHOWN, "guideline_version": "1"}
    return ServerTask(number, data, 1, False, annotations)


def pushed(*needed, pushed_at=0.0):
    tasks = [{"task_id": f"t{i}", "needed": count, "assigned": []} for i, count in enumerate(needed)]
    return {"tasks": tasks, "pushed_at": pushed_at, "url": "http://there/projects/1/data", "project_id": 1}


def measure(pushed, tasks, users, min_lead_time_s):
    return measure_plan(pushed["tasks"], tasks, users, min_lead_time_s)


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
    assert verdict(progress_of(4), pushed(1, 1, 1, 1), UNCHECKED, 1.0) is ExitCode.OK


def test_before_the_deadline_fewer_are_not_yet_enough():
    assert verdict(progress_of(3), pushed(1, 1, 1, 1), UNCHECKED, 7199.0) is ExitCode.NOT_YET


def test_at_the_deadline_the_minimum_is_enough():
    assert verdict(progress_of(3), pushed(1, 1, 1, 1), UNCHECKED, 7200.0) is ExitCode.OK


def test_after_the_deadline_fewer_end_the_run_with_the_numbers():
    with pytest.raises(BadInput, match=r"2 of 4 labels \(50%\).*deadline_hours=2 .*min_complete_share=0.75"):
        verdict(progress_of(2), pushed(1, 1, 1, 1), UNCHECKED, 7200.0)


def disputed(*orders, needed=2, more=0):
    """One task on which ann said the first order, bob the second, and so on."""
    users = {number: User(number, f"{name}@example.org") for number, name in enumerate(("ann", "bob", "cem"), 1)}
    task = server_task(0, *(submitted(number, number, order.split()) for number, order in enumerate(orders, 1)))
    plan = [{"task_id": "t0", "needed": needed, "more": more, "assigned": []}]
    return measure_plan(plan, [task], users, 2.0)


def test_labels_that_disagree_stop_the_round_and_name_tasks_and_people():
    progress = disputed("m1 m0 m2 m3", "m3 m2 m0 m1")
    found = verdict(progress, pushed(2), PARAMS, 1.0)
    assert isinstance(found, Disagreement)
    assert "agree on 0.0% of the pairs of 1 tasks, under the floor prepare_preferences.min_agreement=0.6" in str(found)
    assert list(whom_to_ask(found, progress, 2.0)) == [
        "  task 0: 0% alike, ranked by ann@example.org, bob@example.org; somebody else is asked now"
    ]


def test_one_more_label_is_asked_for_on_a_disputed_task():
    progress = disputed("m1 m0 m2 m3", "m3 m2 m0 m1")
    assert not progress.tasks[0].open
    asked = ask_for_more(disagreement(progress, 0.6), pushed(2, 1), None)
    assert [entry.get("more", 0) for entry in asked["tasks"]] == [1, 0]
    assert disputed("m1 m0 m2 m3", "m3 m2 m0 m1", more=1).tasks[0].open


def test_simulated_labelers_are_asked_until_each_has_ranked_the_task():
    trouble = disagreement(disputed("m1 m0 m2 m3", "m3 m2 m0 m1"), 0.6)
    everybody = ["ann@example.org", "bob@example.org", "dia@example.org"]
    assert ask_for_more(trouble, pushed(2), everybody)["tasks"][0]["assigned"] == ["dia@example.org"]
    with pytest.raises(BadInput, match="every simulated labeler has ranked them"):
        ask_for_more(trouble, pushed(2), everybody[:2])


def test_the_round_goes_on_when_a_third_label_or_an_update_brings_agreement():
    third = disputed("m1 m0 m2 m3", "m2 m1 m0 m3", "m1 m0 m2 m3", more=1)
    assert verdict(third, pushed(2), PARAMS, 1.0) is ExitCode.OK
    updated = disputed("m1 m0 m2 m3", "m1 m0 m2 m3", more=1)
    assert verdict(updated, pushed(2), PARAMS, 1.0) is ExitCode.OK


def test_at_the_deadline_disagreement_ends_the_run_with_the_tasks():
    with pytest.raises(BadInput, match=r"under the floor.*deadline_hours=2 has passed. Talk about the tasks 0 of http"):
        verdict(disputed("m1 m0 m2 m3", "m3 m2 m0 m1"), pushed(2), PARAMS, 7200.0)


def test_agreement_that_nobody_can_measure_is_refused_at_once():
    with pytest.raises(BadInput, match="raise labeling.overlap_share"):
        verdict(progress_of(4), pushed(1, 1, 1, 1), PARAMS, 1.0)


def test_who_cannot_judge_disputes_nothing():
    unsure = ServerAnnotation(
        2, 2, False, 20.0, tuple(to_result(Judgement((("m3",), ("m1",)), ("cannot_judge",)), SHOWN))
    )
    progress = measure(pushed(2), [server_task(0, submitted(1, 1), unsure)], USERS, 2.0)
    assert progress.done == 2
    assert progress.tasks[0].agreement is None

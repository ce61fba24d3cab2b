from collections import Counter

import pytest

from labeling.assignment import plan
from pipelines.core.errors import BadInput

LABELERS = [f"labeler-{i}" for i in range(5)]
TASKS = [f"task-{i}" for i in range(60)]


def test_a_share_of_the_tasks_goes_to_several_and_the_others_to_one():
    planned = plan(TASKS, 0.3, 3, LABELERS)
    assert [entry.task_id for entry in planned] == TASKS
    assert Counter(entry.needed for entry in planned) == {3: 18, 1: 42}
    assert all(len(set(entry.assigned)) == entry.needed for entry in planned)


def test_loads_differ_by_one_at_most():
    load = Counter(name for entry in plan(TASKS, 0.3, 3, LABELERS) for name in entry.assigned)
    assert sum(load.values()) == 96
    assert max(load.values()) - min(load.values()) <= 1


def test_the_plan_depends_on_nothing_else():
    assert plan(TASKS, 0.3, 3, LABELERS) == plan(TASKS, 0.3, 3, LABELERS)
    reversed_tasks = plan(TASKS[::-1], 0.3, 3, LABELERS)
    assert {entry.task_id: entry for entry in reversed_tasks}.keys() == set(TASKS)
    needs = {entry.task_id: entry.needed for entry in plan(TASKS, 0.3, 3, LABELERS)}
    assert {entry.task_id: entry.needed for entry in reversed_tasks} == needs


def test_people_who_are_not_known_are_planned_by_number_only():
    planned = plan(TASKS, 0.5, 2, None)
    assert Counter(entry.needed for entry in planned) == {2: 30, 1: 30}
    assert all(entry.assigned == () for entry in planned)


def test_fewer_labelers_than_a_task_needs_are_refused():
    with pytest.raises(BadInput, match="overlap_labelers is 3 and there are 2"):
        plan(TASKS, 0.3, 3, LABELERS[:2])

import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from labeling.agreement import measure
from labeling.agreement_report import render
from labeling.pairs import (
    held_out_prompts,
    model_preferences,
    once,
    people_preferences,
    preferences_of,
    room_for_model,
    weighed,
)
from labeling.prepare_preferences import (
    agreement_with_model,
    check_agreement,
    check_model,
    keep_labels,
    summarize,
    task_rows,
)
from pipelines.core import artifacts
from pipelines.core.errors import BadInput, ExitCode
from pipelines.core.jsonl import read_json, read_rows, write_json, write_rows
from tests.labeling.batches import annotation, batch, task, workspace

PROGRESS = {"labels": 2, "labels_needed": 4, "tasks": 1, "tasks_needed": 2}
ABCD = ["first answer", "second answer", "third answer", "fourth answer"]


def ranking(text):
    return tuple((name,) for name in text.split())


def test_what_is_no_label_is_dropped_and_counted():
    annotations = [
        annotation("t", "m1 m0 m2 m3", "ann", number=1),
        annotation("t", "m0 m1 m2 m3", "bob", number=2, lead_time_s=0.5),
        annotation("t", "", "cem", number=3, flags=["skipped"]),
        annotation("t", "m1 m0 m2 m3", "dia", number=4, flags=["cannot_judge"]),
        annotation("gone", "m1 m0 m2 m3", "ann", number=5),
        annotation("t", "m3 m0 m2 m1", "ann", number=6),
    ]
    kept = keep_labels(annotations, {"t"}, 2.0)
    assert [label.annotation_id for label in kept.labels["t"]] == [6]
    assert kept.dropped == {
        "untouched": 1,
        "skipped": 1,
        "cannot judge": 1,
        "task is not of this batch": 1,
        "replaced by a later one": 1,
    }


def test_pairs_are_limited_and_weigh_one_per_prompt():
    entry = task("p", ABCD)
    pairs = preferences_of(entry, [ranking("m3 m1 m0 m2")], 3, 1)
    assert len(pairs) == 3
    assert (pairs[0].chosen, pairs[0].rejected) == ("fourth answer", "third answer")
    assert sum(pair.weight for pair in pairs) == pytest.approx(1)
    assert len({pair.id for pair in pairs}) == 3


def test_a_pair_knows_which_answer_the_limit_cut():
    entry = task("p", ABCD)
    cut = replace(entry.completions[2], finish_reason="length")
    entry = replace(entry, completions=(*entry.completions[:2], cut, entry.completions[3]))
    pairs = preferences_of(entry, [ranking("m3 m1 m0 m2")], 6, 1)
    assert {pair.rejected for pair in pairs if not pair.rejected_stopped} == {"third answer"}
    assert all(pair.chosen_stopped for pair in pairs)


def test_a_pair_of_equal_texts_is_no_pair():
    entry = task("p", ["same", "same", "other", "other"])
    pairs = preferences_of(entry, [ranking("m0 m1 m2 m3")], 6, 1)
    assert {(pair.chosen, pair.rejected) for pair in pairs} == {("same", "other")}
    assert all(pair.weight == 0.25 for pair in pairs)


def test_one_simulated_label_marks_every_pair_of_its_task():
    entry = task("p", ABCD)
    labels = [annotation(entry.id, "m0 m1 m2 m3"), annotation(entry.id, "m0 m1 m2 m3", "sim", simulated=True)]
    assert all(pair.simulated for pair in people_preferences({entry.id: entry}, {entry.id: labels}, 3, 1))
    assert not any(pair.simulated for pair in people_preferences({entry.id: entry}, {entry.id: labels[:1]}, 3, 1))


def test_the_split_is_by_prompt_and_leaves_neither_side_empty():
    prompts = [f"p{i}" for i in range(10)]
    assert len(held_out_prompts(prompts, 0.2, 1)) == 2
    assert held_out_prompts(prompts, 0.2, 1) == held_out_prompts(prompts[::-1], 0.2, 1)
    assert len(held_out_prompts(prompts[:2], 0.01, 1)) == 1
    assert len(held_out_prompts(prompts[:2], 0.99, 1)) == 1
    assert held_out_prompts(prompts, 0, 1) == set()


def summary_of(annotations, tasks, floor):
    kept = keep_labels(annotations, set(tasks), 2.0)
    rankings = {task_id: [label.ranking for label in labels] for task_id, labels in kept.labels.items()}
    agreement = measure(rankings, np.random.default_rng(0))
    return summarize(agreement, [], task_rows(tasks, kept.labels), kept, floor, PROGRESS, None)


def test_the_gate_names_the_tasks_on_which_people_disagree():
    tasks = {entry.id: entry for entry in (task("agreed", ABCD), task("disputed", ABCD))}
    agreed, disputed = tasks
    annotations = [
        annotation(agreed, "m1 m0 m2 m3", "ann"),
        annotation(agreed, "m1 m0 m2 m3", "bob"),
        annotation(disputed, "m1 m0 m2 m3", "ann"),
        annotation(disputed, "m3 m2 m0 m1", "bob"),
    ]
    with pytest.raises(BadInput, match=rf"50.0% of the pairs of 2 tasks.*=0.6.*Least agreement: {disputed} \(0%"):
        check_agreement(summary_of(annotations, tasks, 0.6))
    check_agreement(summary_of(annotations, tasks, 0.5))


def test_agreement_that_nobody_measured_is_refused_unless_asked_for():
    entry = task("p", ABCD)
    annotations = [annotation(entry.id, "m1 m0 m2 m3")]
    with pytest.raises(BadInput, match="overlap_share"):
        check_agreement(summary_of(annotations, {entry.id: entry}, 0.6))
    check_agreement(summary_of(annotations, {entry.id: entry}, 0.0))


def test_the_report_escapes_what_people_typed():
    entry = task("p", ABCD, question="<img src=x onerror=alert(1)>")
    page = render(summary_of([annotation(entry.id, "m1 m0 m2 m3")], {entry.id: entry}, 0.0))
    assert "<img" not in page
    assert "&lt;img" in page
    assert not re.search(r"<script|https?://(?!www\.w3)", page)


def run_stage(root):
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONNOUSERSITE": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-m", "labeling.prepare_preferences"]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)


def test_the_stage_writes_the_same_bytes_twice(tmp_path):
    tasks = batch(10)
    root = workspace(tmp_path, tasks)
    annotations = [
        annotation(entry.id, order, labeler, number=i * 2 + j, shown="m3 m2 m1 m0", simulated=True)
        for i, entry in enumerate(tasks)
        for j, (labeler, order) in enumerate([("ann", "m0 m1 m2 m3"), ("bob", "m0 m2 m1 m3")])
    ]
    write_rows(root / artifacts.ANNOTATIONS, (entry.to_row() for entry in annotations))
    write_json(root / artifacts.PROGRESS, PROGRESS)
    outputs = []
    for _ in range(2):
        done = run_stage(root)
        assert done.returncode == 0, done.stderr
        folder = root / artifacts.PREPARE_PREFERENCES
        outputs.append({path.name: path.read_bytes() for path in sorted(folder.iterdir())})
    assert outputs[0] == outputs[1]
    assert set(outputs[0]) == {"agreement.html", "agreement.json", "held_out.jsonl", "train.jsonl"}
    train = {row["prompt"]["id"] for row in read_rows(root / artifacts.PREFERENCES_TRAIN)}
    held_out = {row["prompt"]["id"] for row in read_rows(root / artifacts.PREFERENCES_HELD_OUT)}
    assert len(train) == 8
    assert len(held_out) == 2
    assert not train & held_out
    metrics = json.loads((root / artifacts.metrics_of("prepare_preferences")).read_text())
    assert metrics["pairwise_agreement"] == pytest.approx(5 / 6)
    assert metrics["simulated_share"] == 1


def test_the_stage_refuses_labels_that_disagree(tmp_path):
    tasks = batch(4)
    root = workspace(tmp_path, tasks)
    annotations = [
        annotation(entry.id, order, labeler, number=i * 2 + j, shown="m1 m0 m3 m2")
        for i, entry in enumerate(tasks)
        for j, (labeler, order) in enumerate([("ann", "m0 m1 m2 m3"), ("bob", "m3 m2 m1 m0")])
    ]
    write_rows(root / artifacts.ANNOTATIONS, (entry.to_row() for entry in annotations))
    write_json(root / artifacts.PROGRESS, PROGRESS)
    done = run_stage(root)
    assert done.returncode == ExitCode.BAD_INPUT
    assert "labelers agree on 0.0%" in done.stderr
    assert not (root / artifacts.PREFERENCES_TRAIN).exists()
    assert (root / artifacts.AGREEMENT_REPORT).exists()


def scored(name, scores, asked=False):
    return replace(task(name, ABCD), scores=dict(zip(("m0", "m1", "m2", "m3"), scores, strict=True)), asked=asked)


def test_a_reward_model_ranks_what_nobody_was_asked_about_and_its_pairs_are_marked():
    tasks = [scored("p", [0.5, 2.0, -1.0, 0.5]), scored("asked", [1.0, 2.0, 3.0, 4.0], asked=True)]
    pairs = model_preferences(tasks, simulated=True, room=10, limit=6, seed=1)
    assert (pairs[0].chosen, pairs[0].rejected) == ("second answer", "third answer")
    assert len(pairs) == 5  # the two of the same score make none
    assert all(pair.by_reward_model and pair.simulated for pair in pairs)
    assert sum(pair.weight for pair in pairs) == pytest.approx(1)


def test_a_prompt_of_two_rounds_weighs_as_much_as_one_of_one():
    first, second = task("p", ABCD), task("p", ["fifth", "sixth", "seventh", "eighth"])
    other = task("q", ABCD)
    order = [ranking("m3 m1 m0 m2")]
    found = weighed([pair for each in (first, second, other) for pair in preferences_of(each, order, 6, 1)])
    assert [pair.weight for pair in found] == [1 / 12] * 12 + [1 / 6] * 6


def test_pairs_of_a_reward_model_are_capped_as_a_share_earlier_ones_included():
    entry = task("p", ABCD)
    people = preferences_of(entry, [ranking("m0 m1 m2 m3")], 6, 1)
    by_model = [replace(pair, by_reward_model=True) for pair in people[:2]]
    assert room_for_model(people, 0.5) == 6
    assert room_for_model([*people, *by_model], 0.5) == 4
    assert room_for_model(people, 0.0) == 0
    assert len(model_preferences([scored("q", [1, 2, 3, 4]), scored("r", [1, 2, 3, 4])], False, 4, 3, 1)) == 3


def test_people_who_disagree_with_a_reward_model_refuse_it_as_a_source():
    entry = scored("p", [4.0, 3.0, 2.0, 1.0], asked=True)
    labels = {entry.id: [annotation(entry.id, "m3 m1 m0 m2")]}
    found = agreement_with_model({entry.id: entry}, labels, np.random.default_rng(0))
    assert found.value == pytest.approx(2 / 6)
    summary = {"reward_model": found.to_row()}
    check_model(summary, "people", 0.6)
    check_model(summary, "reward_model", 0.3)
    with pytest.raises(BadInput, match=r"refused: people agree with the reward model on 33.3% of the pairs of 1 tasks"):
        check_model(summary, "reward_model", 0.6)
    with pytest.raises(BadInput, match="on nothing that was checked"):
        check_model({"reward_model": None}, "reward_model", 0.6)


def test_the_same_two_answers_count_once_as_people_last_said():
    one, other, third = preferences_of(task("p", ABCD), [ranking("m0 m1 m2 m3")], 3, 1)
    turned = replace(one, chosen=one.rejected, rejected=one.chosen)
    assert once([one, other, turned]) == [turned, other]
    assert once([one, replace(turned, by_reward_model=True), third]) == [one, third]


def test_preferences_of_earlier_rounds_stay_and_stay_on_their_side(tmp_path):
    tasks = batch(10)
    root = workspace(tmp_path, tasks)
    annotations = [
        annotation(entry.id, "m0 m1 m2 m3", labeler, number=i * 2 + j, shown="m3 m2 m1 m0")
        for i, entry in enumerate(tasks)
        for j, labeler in enumerate(("ann", "bob"))
    ]
    write_rows(root / artifacts.ANNOTATIONS, (entry.to_row() for entry in annotations))
    write_json(root / artifacts.PROGRESS, PROGRESS)
    before = read_json(root / artifacts.PREVIOUS_ROUND_MANIFEST)
    write_json(root / artifacts.PREVIOUS_ROUND_MANIFEST, before | {"number": 2, "run": "first"})
    old = [
        [
            replace(pair, id=f"old {pair.id}", rejected=f"older {pair.rejected}")
            for pair in preferences_of(entry, [order], 2, 1)
        ]
        for entry in (tasks[0], tasks[1], task("old", ABCD))
        for order in [ranking("m3 m2 m1 m0")]
    ]
    write_rows(root / artifacts.PREVIOUS_PREFERENCES_HELD_OUT, (pair.to_row() for pair in old[0]))
    write_rows(root / artifacts.PREVIOUS_PREFERENCES_TRAIN, (pair.to_row() for pair in [*old[1], *old[2]]))
    done = run_stage(root)
    assert done.returncode == 0, done.stderr
    train, held_out = (
        {row["id"]: row["prompt"]["id"] for row in read_rows(root / path)}
        for path in (artifacts.PREFERENCES_TRAIN, artifacts.PREFERENCES_HELD_OUT)
    )
    assert {pair.id for pair in [*old[1], *old[2]]} <= set(train)
    assert {pair.id for pair in old[0]} <= set(held_out)
    assert not set(train.values()) & set(held_out.values())
    assert "p0" in held_out.values() and "p1" in train.values()

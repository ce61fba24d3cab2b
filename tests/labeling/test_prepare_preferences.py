import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from labeling.agreement import measure
from labeling.agreement_report import render
from labeling.prepare_preferences import (
    check_agreement,
    held_out_prompts,
    keep_labels,
    preferences_of,
    summarize,
    task_rows,
)
from pipelines.core import artifacts
from pipelines.core.errors import BadInput, ExitCode
from pipelines.core.jsonl import read_rows, write_json, write_rows
from tests.labeling.batches import annotation, batch, task, workspace

PROGRESS = {"labels": 2, "labels_needed": 4, "tasks": 1, "tasks_needed": 2}
ABCD = ["first answer", "second answer", "third answer", "fourth answer"]


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
    pairs = preferences_of(entry, [annotation(entry.id, "m3 m1 m0 m2")], 3, 1)
    assert len(pairs) == 3
    assert (pairs[0].chosen, pairs[0].rejected) == ("fourth answer", "third answer")
    assert sum(pair.weight for pair in pairs) == pytest.approx(1)
    assert len({pair.id for pair in pairs}) == 3


def test_a_pair_of_equal_texts_is_no_pair():
    entry = task("p", ["same", "same", "other", "other"])
    pairs = preferences_of(entry, [annotation(entry.id, "m0 m1 m2 m3")], 6, 1)
    assert {(pair.chosen, pair.rejected) for pair in pairs} == {("same", "other")}
    assert all(pair.weight == 0.25 for pair in pairs)


def test_one_simulated_label_marks_every_pair_of_its_task():
    entry = task("p", ABCD)
    labels = [annotation(entry.id, "m0 m1 m2 m3"), annotation(entry.id, "m0 m1 m2 m3", "sim", simulated=True)]
    assert all(pair.simulated for pair in preferences_of(entry, labels, 3, 1))
    assert not any(pair.simulated for pair in preferences_of(entry, labels[:1], 3, 1))


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
    return summarize(agreement, [], task_rows(tasks, kept.labels), kept, floor, PROGRESS)


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

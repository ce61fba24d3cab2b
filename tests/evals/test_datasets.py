"""The project's own evaluation sets are what their data card says."""

from collections import Counter
from pathlib import Path

import pytest

from evals.sandbox import Sandbox
from evals.tasks.humaneval import program
from pipelines.core.jsonl import read_rows

DATASETS = Path(__file__).parents[2] / "evals" / "datasets"
KNOWLEDGE = list(read_rows(DATASETS / "knowledge.jsonl"))
PROGRAMS = list(read_rows(DATASETS / "programs.jsonl"))
SAFETY = list(read_rows(DATASETS / "safety.jsonl"))


def test_knowledge_has_enough_questions_in_every_subject() -> None:
    splits = Counter((row["subject"], row["split"]) for row in KNOWLEDGE)
    subjects = {row["subject"] for row in KNOWLEDGE}
    assert len(subjects) >= 8
    assert sum(row["split"] == "test" for row in KNOWLEDGE) >= 110
    assert all(splits[subject, "dev"] == 5 for subject in subjects)


def test_knowledge_rows_are_well_formed_and_unique() -> None:
    for row in KNOWLEDGE:
        assert len(row["choices"]) == len(set(row["choices"])) == 4, row["id"]
        assert row["answer"] in range(4)
    assert len({row["question"] for row in KNOWLEDGE}) == len({row["id"] for row in KNOWLEDGE}) == len(KNOWLEDGE)


def chance_of_the_longest(row: dict) -> float:
    """How often a guess among the longest choices is right."""
    longest = max(map(len, row["choices"]))
    return (len(row["choices"][row["answer"]]) == longest) / sum(len(choice) == longest for choice in row["choices"])


def test_no_letter_and_no_length_gives_the_answer_away() -> None:
    test = [row for row in KNOWLEDGE if row["split"] == "test"]
    letters = Counter(row["answer"] for row in test)
    assert max(letters.values()) - min(letters.values()) <= 1
    assert sum(map(chance_of_the_longest, test)) / len(test) < 0.35  # 0.25 when length says nothing


def test_programs_are_in_humanevals_format() -> None:
    assert len(PROGRAMS) == 20
    for row in PROGRAMS:
        assert set(row) == {"task_id", "prompt", "entry_point", "canonical_solution", "test"}
        assert f"def {row['entry_point']}(" in row["prompt"]


def test_canonical_solutions_pass_and_empty_ones_fail() -> None:
    sandbox = Sandbox()
    if sandbox.unscored:
        pytest.skip(f"no sandbox: {sandbox.unscored}")
    right = sandbox.run([program(row, row["canonical_solution"]) for row in PROGRAMS], 5.0)
    wrong = sandbox.run([program(row, "    return None\n") for row in PROGRAMS], 5.0)
    assert all(ended.passed for ended in right)
    assert not any(ended.passed for ended in wrong)


def test_safety_has_both_kinds_in_the_same_categories() -> None:
    kinds = Counter(row["kind"] for row in SAFETY)
    assert min(kinds["harmful"], kinds["benign"]) >= 20
    categories = {kind: {row["category"] for row in SAFETY if row["kind"] == kind} for kind in kinds}
    assert categories["harmful"] == categories["benign"]

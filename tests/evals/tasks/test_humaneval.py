"""Completions run in the sandbox, or are unscored with the reason."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evals.sandbox import Sandbox
from evals.tasks.humaneval import HumanEval, prompt_ids
from pipelines.core.jsonl import read_rows
from tests.evals.scripted import ScriptedEngine

DATASETS = Path(__file__).parents[3] / "evals" / "datasets"


def human_eval(sandbox: Any) -> HumanEval:
    return HumanEval(DATASETS / "programs.jsonl", 3, 64, 3.0, sandbox, seed=1)


def test_humaneval_passes_right_completions_and_fails_others(tiny_model: Path) -> None:
    sandbox = Sandbox()
    if sandbox.unscored:
        pytest.skip(f"no sandbox: {sandbox.unscored}")
    right = [row["canonical_solution"] for row in read_rows(DATASETS / "programs.jsonl")][:2]
    engine = ScriptedEngine(tiny_model, [*right, "\n    return 'x'"])
    assert [result.scores["pass_at_1"].value for result in human_eval(sandbox).run(engine)] == [1.0, 1.0, 0.0]


def test_humaneval_without_a_sandbox_is_unscored_with_the_reason(tiny_model: Path) -> None:
    engine = ScriptedEngine(tiny_model, ["", "", ""])
    results = human_eval(SimpleNamespace(unscored="no bwrap")).run(engine)
    assert [(result.scores, result.unscored) for result in results] == [({}, "not run: no bwrap")] * 3


def test_the_answer_begins_with_the_function(tiny_model: Path) -> None:
    engine = ScriptedEngine(tiny_model, [])
    row = next(iter(read_rows(DATASETS / "programs.jsonl")))
    text = engine.tokenizer.decode(prompt_ids(engine, row)[1:])
    assert text == "```python\n" + row["prompt"].rstrip()

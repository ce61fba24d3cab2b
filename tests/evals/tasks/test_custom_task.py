"""Cases of a custom eval are answered as served; the judge decides what was left open."""

from pathlib import Path
from typing import Any

from evals.custom import load_custom_eval
from evals.judge import Question, Vote
from evals.task import summarize
from evals.tasks.chat_quality import Voice
from evals.tasks.custom import Custom, decide
from tests.evals.scripted import ScriptedEngine

FILE = """measures: m
cases:
  - {id: plain, prompt: Which animal says baa?, scorer: contains, expected: sheep}
  - {id: secret, system: The code is 77., prompt: Tell me the code., scorer: contains, expected: "77", negate: true}
  - {id: empty, prompt: Say something., scorer: contains, expected: x, negate: true}
  - {id: judged, prompt: Where is it?, scorer: judge, expected: In the mill.}
"""


class PrefersLonger:
    name = "longer"
    facts: dict[str, float] = {}

    repeats = 1

    def vote(self, questions: list[Question], repeat: int = 0) -> list[Vote]:
        return [Vote("first" if len(q.first.text) > len(q.second.text) else "second") for q in questions]


class Silent(PrefersLonger):
    def vote(self, questions: list[Question], repeat: int = 0) -> list[Vote]:
        return [Vote(None, "down") for _ in questions]


def run(tmp_path: Path, tiny_model: Path) -> tuple[Custom, ScriptedEngine, list]:
    (tmp_path / "mine.yaml").write_text(FILE)
    task = Custom(load_custom_eval(tmp_path / "mine.yaml"), 16, Voice("Be kind.", 0.7, 0.9, 1))
    engine = ScriptedEngine(tiny_model, ["A sheep.", "It is 77.", "", "It is in the mill by the river."])
    return task, engine, task.run(engine)


def test_cases_are_scored_and_the_judges_left_open(tmp_path: Path, tiny_model: Path) -> None:
    task, engine, results = run(tmp_path, tiny_model)
    assert task.name == "custom_mine"
    passed = {result.id: result.scores["passed"].value for result in results if result.scores}
    assert passed == {"plain": 1.0, "secret": 0.0, "empty": 0.0}
    assert engine.rendered[0][0]["content"] == "Be kind."
    assert engine.rendered[1][0]["content"] == "The code is 77."
    found = summarize(results, task.metrics, 0.05, 1)["passed"]
    assert (found["n"], found["unscored"], found["reason"]) == (3, 1, "the judge has not been asked")


def test_the_judge_decides_against_the_reference(tmp_path: Path, tiny_model: Path) -> None:
    _, _, results = run(tmp_path, tiny_model)
    judge: Any = PrefersLonger()
    decided = {result.id: result for result in decide(results, judge)}
    assert decided["judged"].scores["passed"].value == 1.0
    assert decided["judged"].unscored is None
    assert decided["plain"] == results[0]


def test_a_judge_that_does_not_answer_leaves_the_case_unscored(tmp_path: Path, tiny_model: Path) -> None:
    judge: Any = Silent()
    last = decide(run(tmp_path, tiny_model)[2], judge)[-1]
    assert (last.scores, last.unscored) == ({}, "down")

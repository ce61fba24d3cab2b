"""What each judge makes of a question: letters and grades read, tokens counted, and an endpoint that fails."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evals.criteria import CRITERIA, Grade, Graded, grade_answers, parse_grade
from evals.judge import Answer, Pair, Question, compare, report
from evals.judges import (
    EndpointJudge,
    JudgeDown,
    LocalJudge,
    Prices,
    Replies,
    RuleJudge,
    parse_letter,
    question_text,
)
from pipelines.core.errors import BadInput
from pipelines.model.engine import TransformersEngine
from tests.evals.endpoint import endpoint
from tests.evals.test_judge import pair

PAIRS = [pair(0), pair(1), pair(2, "bad", "good answer")]


@pytest.mark.parametrize(
    ("reply", "choice"),
    [("A", "first"), (" b.", "second"), ("[[A]]", "first"), ("Answer B", "second"), ("tie", "tie")],
)
def test_letters_are_read(reply: str, choice: str) -> None:
    assert parse_letter(reply).choice == choice


@pytest.mark.parametrize("reply", ["", "Both are fine", "A or B", "I prefer A because it is longer"])
def test_anything_else_is_no_verdict(reply: str) -> None:
    vote = parse_letter(reply)
    assert vote.choice is None
    assert vote.reason


def test_the_local_judge_takes_a_constant_bias_out() -> None:
    judge = LocalJudge("small", engine=None, batch_size=1)
    votes = judge.vote_by_odds(np.array([3.0, 2.0, 1.0, 2.0, 2.0]))
    assert [vote.choice for vote in votes] == ["first", "tie", "second", "tie", "tie"]
    assert judge.facts == {"first_bias_nats": 2.0}


def test_the_control_prefers_what_the_rule_prefers() -> None:
    good = Pair("p", "How do plants grow?", Answer("Plants grow with light and water."), Answer("xq xq xq xq"), "facts")
    found = report(RuleJudge(), compare(RuleJudge(), [good]), 0.05, 1)
    assert found["wins"] == 1


def test_a_question_holds_braces_and_is_bounded() -> None:
    text = question_text(Question("{x}", Answer("{y}"), Answer("z" * 10_000)))
    assert "{x}" in text
    assert "{y}" in text
    assert len(text) < 3_000


def prefers_good(body: dict[str, Any]) -> tuple[int, str]:
    """The verdict of a judge that knows the word "good", and 7 for every grade."""
    asked = body["messages"][0]["content"]
    if "[Answer A]" not in asked:
        return 200, "7"
    first = asked.partition("[Answer A]")[2].partition("[Answer B]")[0]
    return 200, "A" if "good" in first else "B"


def test_an_endpoint_finds_a_planted_preference_and_counts_tokens_and_cost(tmp_path: Path) -> None:
    with endpoint(prefers_good) as served:
        judge = EndpointJudge(served.url, "m", Replies(tmp_path / "r"), prices=Prices(10.0, 1000.0))
        found = report(judge, compare(judge, PAIRS), 0.05, 1)
    assert (found["wins"], found["losses"], found["inconsistent"]) == (2, 1, 0)
    # All three ask the same two questions: 200 and 4 tokens, 0.002 + 0.004.
    assert found["facts"] == {"prompt_tokens": 200, "completion_tokens": 4, "cost": 0.006}


def test_repeats_ask_with_another_seed_each(tmp_path: Path) -> None:
    with endpoint(prefers_good) as served:
        judge = EndpointJudge(served.url, "m", Replies(tmp_path / "r"), repeats=3, temperature=0.7)
        found = report(judge, compare(judge, [pair(0)]), 0.05, 1)
        assert sorted(body["seed"] for body in served.requests) == [0, 0, 1, 1, 2, 2]
    assert found["repeats"] == {"asked": 3, "pairs": 1, "variance": 0.0, "changed": 0}


def test_a_busy_endpoint_is_asked_again(tmp_path: Path) -> None:
    busy = iter([503, 429])

    def answer(body: dict[str, Any]) -> tuple[int, str]:
        status = next(busy, 200)
        return status, "A" if status == 200 else "busy"

    with endpoint(answer) as served:
        judge = EndpointJudge(served.url, "m", Replies(tmp_path / "r"), concurrent=1, attempts=3)
        assert [vote.choice for vote in judge.vote([Question("q", Answer("a"), Answer("b"))])] == ["first"]
        assert len(served.requests) == 3


def test_a_judge_that_goes_down_half_way_is_an_error_and_a_retry_asks_only_what_is_missing(tmp_path: Path) -> None:
    pairs = [pair(number, f"good answer {number}", f"bad {number}") for number in range(6)]
    asked = 0

    def dies(body: dict[str, Any]) -> tuple[int, str]:
        nonlocal asked
        asked += 1
        return prefers_good(body) if asked <= 5 else (503, "down")

    with endpoint(dies) as served:
        judge = EndpointJudge(served.url, "m", Replies(tmp_path / "r"), concurrent=1, attempts=1)
        with pytest.raises(JudgeDown, match="did not answer in 1 attempts.*5 replies are kept"):
            compare(judge, pairs)
        served.answer = prefers_good
        served.requests.clear()
        resumed = EndpointJudge(served.url, "m", Replies(tmp_path / "r"), concurrent=1)
        found = report(resumed, compare(resumed, pairs), 0.05, 1)
        assert len(served.requests) == 7
        undisturbed = EndpointJudge(served.url, "m", Replies(tmp_path / "other"))
        assert found == report(undisturbed, compare(undisturbed, pairs), 0.05, 1)
    assert found["wins"] == 6


def test_a_reply_that_was_cut_by_a_kill_is_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "r"
    with endpoint(prefers_good) as served:
        judge = EndpointJudge(served.url, "m", Replies(path))
        compare(judge, [pair(0)])
        path.write_bytes(path.read_bytes()[:-5])
        assert len(Replies(path)) == 1
        compare(EndpointJudge(served.url, "m", Replies(path)), [pair(0)])
        assert len(served.requests) == 3
    assert len(Replies(path)) == 2


def test_an_endpoint_that_nobody_serves_is_down(tmp_path: Path) -> None:
    judge = EndpointJudge("http://127.0.0.1:9/v1", "nobody", Replies(tmp_path / "r"), attempts=1, timeout_s=1)
    with pytest.raises(JudgeDown, match="127.0.0.1:9.*APIConnectionError"):
        compare(judge, [pair(0)])


@pytest.mark.parametrize("status", [400, 401, 404])
def test_an_endpoint_that_refuses_is_bad_input_with_the_remedy(tmp_path: Path, status: int) -> None:
    with endpoint(lambda body: (status, "no such model")) as served:
        judge = EndpointJudge(served.url, "m", Replies(tmp_path / "r"))
        with pytest.raises(BadInput, match=rf"{status}: .*no such model.*judge\.model and OPENAI_API_KEY"):
            compare(judge, [pair(0)])


def test_a_verdict_that_an_endpoint_rambles_is_unscored(tmp_path: Path) -> None:
    with endpoint(lambda body: (200, "Both are fine")) as served:
        judge = EndpointJudge(served.url, "m", Replies(tmp_path / "r"))
        found = report(judge, compare(judge, PAIRS), 0.05, 1)
    assert found["unscored"] == 3
    assert found["win_rate"]["value"] is None


@pytest.mark.parametrize(("reply", "grade"), [("7", 7), (" 10.", 10), ("[[3]]", 3), ("8/10", 8), ("9 out of 10", 9)])
def test_grades_are_read(reply: str, grade: int) -> None:
    assert parse_grade(reply).value == grade


@pytest.mark.parametrize("reply", ["", "0", "11", "about 7", "7 or 8", "good"])
def test_anything_else_is_no_grade(reply: str) -> None:
    found = parse_grade(reply)
    assert found.value is None
    assert found.reason


class FakeGrader:
    def grade(self, asked: list[Graded]) -> list[Grade]:
        return [Grade(None, "cut") if graded.answer == "bad" else Grade(len(graded.criterion)) for graded in asked]


def test_both_answers_are_graded_by_four_criteria_and_no_grade_is_no_zero() -> None:
    summary, rows = grade_answers(FakeGrader(), [pair(0), pair(1)], 0.05, 1)
    assert set(summary["candidate"]) == set(CRITERIA) == {"helpfulness", "relevance", "accuracy", "detail"}
    assert summary["candidate"]["relevance"]["value"] == 9
    assert summary["candidate"]["relevance"]["n"] == 2
    assert summary["baseline"]["relevance"]["value"] is None
    assert summary["baseline"]["relevance"]["unscored"] == 2
    assert summary["baseline"]["relevance"]["reason"] == "cut"
    assert len(rows) == 16
    json.dumps(rows)


def test_an_endpoint_grades(tmp_path: Path) -> None:
    with endpoint(prefers_good) as served:
        summary, _ = grade_answers(EndpointJudge(served.url, "m", Replies(tmp_path / "r")), [pair(0)], 0.05, 1)
    assert summary["candidate"]["accuracy"]["value"] == 7


def test_a_local_model_votes_and_grades(tiny_model: Path) -> None:
    judge = LocalJudge("tiny", TransformersEngine.load(tiny_model, "float32", 4), batch_size=4)
    votes = judge.vote(
        [Question("What?", Answer("one"), Answer("two")), Question("What?", Answer("two"), Answer("one"))]
    )
    assert {vote.choice for vote in votes} <= {"first", "second", "tie"}
    grades = judge.grade([Graded("What?", "one", criterion) for criterion in CRITERIA])
    assert all(grade.value is not None and 1 <= grade.value <= 9 for grade in grades)
    assert judge.vote([]) == []

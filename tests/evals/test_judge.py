"""Verdicts: both orders count, a place is no merit, and what can't be read is unscored."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from evals.judge import (
    Answer,
    EndpointJudge,
    LocalJudge,
    Pair,
    Question,
    RuleJudge,
    Vote,
    agreement_with_labels,
    compare,
    parse_letter,
    question_text,
    report,
)


class FakeJudge:
    name = "fake"

    def __init__(self, decide: Callable[[Question], Vote]) -> None:
        self.facts: dict[str, float] = {}
        self._decide = decide

    def vote(self, questions: Sequence[Question]) -> list[Vote]:
        return [self._decide(question) for question in questions]


def pair(number: int, candidate: str = "good answer", baseline: str = "bad") -> Pair:
    return Pair(f"p{number}", "What?", Answer(candidate), Answer(baseline), "facts")


def judged(decide: Callable[[Question], Vote], pairs: list[Pair]) -> dict:
    judge = FakeJudge(decide)
    return report(judge, compare(judge, pairs), 0.05, 1)


def test_a_judge_that_always_says_a_yields_ties_and_a_bias_report() -> None:
    found = judged(lambda question: Vote("first"), [pair(number) for number in range(10)])
    assert (found["wins"], found["ties"], found["losses"]) == (0, 10, 0)
    assert found["win_rate"]["value"] == 0.5
    assert found["first_share"]["value"] == 1.0
    assert found["inconsistent"] == 10


def test_a_planted_preference_is_found_from_both_orders() -> None:
    def prefers_good(question: Question) -> Vote:
        return Vote("first" if "good" in question.first.text else "second")

    found = judged(prefers_good, [pair(0), pair(1), pair(2, "bad", "good answer")])
    assert (found["wins"], found["losses"]) == (2, 1)
    assert found["first_share"]["value"] == 0.5
    assert found["by_category"] == {"facts": {"win": 2, "loss": 1}}


def test_a_taste_for_length_shows() -> None:
    def longer(question: Question) -> Vote:
        return Vote("first" if len(question.first.text) > len(question.second.text) else "second")

    found = judged(longer, [pair(0), pair(1, "short", "a much longer answer")])
    assert found["longer_share"]["value"] == 1.0
    assert found["longer_share"]["n"] == 2


def test_a_verdict_that_does_not_parse_is_unscored() -> None:
    def sometimes(question: Question) -> Vote:
        return Vote(None, "nonsense") if question.first.text == "odd" else Vote("tie")

    found = judged(sometimes, [pair(0), pair(1, "odd")])
    assert found["unscored"] == 1
    assert found["win_rate"]["n"] == 1
    assert found["reasons"] == ["nonsense"]


def test_equal_answers_tie_without_asking() -> None:
    def fails(question: Question) -> Vote:
        raise AssertionError("asked")

    found = judged(fails, [pair(0, "same", "same")])
    assert (found["ties"], found["equal_answers"]) == (1, 1)


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


def test_an_endpoint_that_is_down_leaves_pairs_unscored(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = EndpointJudge("http://127.0.0.1:9/v1", "nobody")
    judge._client = judge._client.with_options(max_retries=0, timeout=1)
    found = report(judge, compare(judge, [pair(0)]), 0.05, 1)
    assert found["unscored"] == 1
    assert "APIConnectionError" in found["reasons"][0]


def test_the_local_judge_takes_a_constant_bias_out() -> None:
    judge = LocalJudge("small", engine=None, batch_size=1)
    votes = judge.vote_by_odds(np.array([3.0, 2.0, 1.0, 2.0, 2.0]))
    assert [vote.choice for vote in votes] == ["first", "tie", "second", "tie", "tie"]
    assert judge.facts == {"first_bias_nats": 2.0}


def test_the_control_prefers_what_the_rule_prefers() -> None:
    good = Pair("p", "How do plants grow?", Answer("Plants grow with light and water."), Answer("xq xq xq xq"), "facts")
    found = report(RuleJudge(), compare(RuleJudge(), [good]), 0.05, 1)
    assert found["wins"] == 1


def test_agreement_counts_a_tie_as_half() -> None:
    judge = FakeJudge(lambda question: Vote("first"))
    assert agreement_with_labels(compare(judge, [pair(0), pair(1)]), 0.05, 1)["value"] == 0.5


def test_a_question_holds_braces_and_is_bounded() -> None:
    text = question_text(Question("{x}", Answer("{y}"), Answer("z" * 10_000)))
    assert "{x}" in text
    assert "{y}" in text
    assert len(text) < 3_000

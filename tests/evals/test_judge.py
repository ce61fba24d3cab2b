"""Verdicts: both orders count, a place is no merit, and what can't be read is unscored."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from evals.judge import Answer, Judgement, Pair, Question, Vote, agreement_with_labels, compare, report


class FakeJudge:
    name = "fake"

    def __init__(self, decide: Callable[[Question], Vote], repeats: int = 1) -> None:
        self.facts: dict[str, float] = {}
        self.repeats = repeats
        self._decide = decide

    def vote(self, questions: Sequence[Question], repeat: int = 0) -> list[Vote]:
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
    assert found["repeats"] == {"asked": 1, "pairs": 0, "variance": None, "changed": None}


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


def test_agreement_counts_a_tie_as_half() -> None:
    judge = FakeJudge(lambda question: Vote("first"))
    found = agreement_with_labels(compare(judge, [pair(0), pair(1)]), 2, 0.05, 1)
    assert (found["value"], found["n"], found["simulated"]) == (0.5, 2, 2)


def votes(*choices: str) -> tuple[Vote, ...]:
    return tuple(Vote(choice) for choice in choices)  # type: ignore[arg-type]


def test_repeated_verdicts_are_settled_by_the_majority_and_their_variance_is_reported() -> None:
    mostly = Judgement(pair(0), votes("first", "first", "first"), votes("second", "second", "first"))
    assert (mostly.outcome, mostly.points) == ("win", 2.5 / 3)
    torn = Judgement(pair(1), votes("first", "second"), votes("second", "first"))
    assert (torn.outcome, torn.points) == ("tie", 0.5)
    found = report(FakeJudge(lambda question: Vote("tie"), repeats=3), [mostly, torn], 0.05, 1)["repeats"]
    # Points 1, 1, 0.5 vary by 1/18 and 1, 0 by 1/4.
    assert found == {"asked": 3, "pairs": 2, "variance": pytest.approx((1 / 18 + 1 / 4) / 2), "changed": 2}


def test_a_judge_of_whims_shows_its_variance() -> None:
    whims = iter(np.random.default_rng(2).choice(["first", "second"], size=10_000).tolist())
    judge = FakeJudge(lambda question: Vote(next(whims)), repeats=5)
    found = report(judge, compare(judge, [pair(number) for number in range(40)]), 0.05, 1)
    assert found["repeats"]["changed"] > 30
    assert found["repeats"]["variance"] > 0.05


def test_a_missing_vote_leaves_the_other_repeats() -> None:
    partly = Judgement(pair(0), (Vote(None, "nonsense"), Vote("first")), votes("second", "second"))
    assert partly.outcome == "win"
    assert partly.unscored == "nonsense"
    assert partly.to_row()["votes"] == [[None, "first"], ["second", "second"]]

"""The card stands alone, escapes what models wrote, shows what differs, and copes with what a run does not have."""

from typing import Any

import pytest

from evals import card_facts, charts, report_card
from evals.judge import agreement_with_labels, compare, report
from evals.judges import RuleJudge
from evals.metrics import Score
from evals.task import SampleResult, summarize
from tests.evals.test_judge import pair

HOSTILE = "<script>alert(1)</script>"
RULE = {
    "name": "a rule",
    "metric": "mmlu.accuracy",
    "kind": "non_inferior_difference",
    "verdict": "refuse",
    "reason": "0.1 < 0.5",
    "why": "w",
    "n": 400,
    "power": 0.9,
    "planned_n": 762,
    "candidate": 0.4,
    "difference": -0.1,
    "low": -0.2,
    "high": -0.05,
    "limit": -0.03,
    "upward": True,
}
VERDICT: dict[str, Any] = {
    "verdict": "refuse",
    "text": "refuse (demo rules)",
    "rules_name": "demo rules",
    "one_sided_alpha": 0.05,
    "notes": [],
    "rules": [RULE],
}
FACTS: dict[str, Any] = {
    "profile": "smol",
    "lineage": [{"title": "Corpus", "figure": "12 words", "lines": ["manual, MIT"]}],
    "funnel": [{"step": "language", "in": 10, "out": 7, "dropped": [("not English", 3)]}],
    "kept": {},
    "curves": [charts.curve("sft: loss", [(1, 3.0), (2, 2.0)])],
    "labels": {"pairwise_agreement": 0.8, "simulated_share": 1.0},
    "reward_model": {"held_out_accuracy": 0.7},
    "label_figures": {"rankings": 12.0},
    "agreement": [{"name": "reward model", "value": 0.7, "low": 0.6, "high": 0.8}],
    "alignment": {"kl_final": 1.0},
    "judged": {"a": {"outcome": "win"}},
}


def sample(name: str, response: str) -> SampleResult:
    return SampleResult(name, "Say <b>hello</b>", response, {"stopped": Score(1.0)}, detail={"category": "x"})


def card(
    candidate: list[SampleResult],
    baseline: list[SampleResult],
    facts: dict[str, Any] = FACTS,
    promotion: dict[str, str] | None = None,
) -> str:
    judged = compare(RuleJudge(), [pair(0)])
    judge = report(RuleJudge(), judged, 0.05, 1) | {"local": True}
    judge |= {"control": dict(judge), "agreement_with_labels": agreement_with_labels(judged, 1, 0.05, 1)}
    sides = {"candidate": {"chat_quality": candidate}, "baseline": {"chat_quality": baseline} if baseline else {}}
    results: dict[str, Any] = {
        side: {task: summarize(rows, ("stopped", "not_there"), 0.05, 1) for task, rows in found.items()}
        for side, found in sides.items()
    }
    results |= {
        "base": results["candidate"],
        "judge": judge,
        "data": {"contaminated": [], "checked": 5},
        "method": "ppo",
        "baseline_model": "sft",
        "seed": 1,
        "versions": {"torch": "2"},
    }
    return report_card.render(VERDICT, results, sides, facts, promotion)


def test_what_models_write_is_escaped() -> None:
    page = card([sample("a", HOSTILE)], [sample("a", "fine")])
    assert HOSTILE not in page
    assert "&lt;script&gt;alert(1)" in page


def test_the_page_loads_nothing() -> None:
    page = card([sample("a", "x")], [sample("a", "y")])
    assert "http" not in page
    assert "src=" not in page
    assert "url(" not in page
    assert "<script" not in page


def test_every_part_of_the_run_is_shown() -> None:
    page = card([sample("a", "x")], [sample("a", "y")])
    for text in (
        "refuse (demo rules)",
        "0.1 &lt; 0.5",
        "762",
        "unscored",
        "base model",
        "12 words",
        "not English (3)",
        "sft: loss",
        "reward model",
        "judged better",
        "no evidence",
        "Known limits",
    ):
        assert text in page, text


def test_a_run_without_baseline_funnel_or_curves_has_a_card_all_the_same() -> None:
    page = card([sample("a", "x")], [], FACTS | {"funnel": [], "curves": [], "agreement": [], "judged": {}})
    assert "There is no baseline" in page


def test_a_forced_release_stands_out() -> None:
    promotion = {"by": "Ada", "reason": "shown at the fair", "at": "2026-11-21"}
    page = card([sample("a", "x")], [sample("a", "y")], promotion=promotion)
    assert "Released although the gate says refuse" in page
    assert "shown at the fair" in page
    assert "Released although" not in card([sample("a", "x")], [sample("a", "y")])


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (-1.3e-16, "0"), (0.123456, "0.1235"), (1234.0, "1,234"), (1.0, "1"), (12345, "12,345")],
)
def test_figures_are_short(value: object, shown: str) -> None:
    assert report_card.number(value) == shown


def test_differing_answers_come_first() -> None:
    candidate = [sample("a", "same"), sample("b", "new")]
    baseline = [sample("a", "same"), sample("b", "old")]
    samples = {"candidate": {"chat_quality": candidate}, "baseline": {"chat_quality": baseline}}
    shown = report_card.sample_rows(samples, {"b": {"outcome": "loss"}})["chat_quality"]
    assert [(row["differs"], row["judged"]) for row in shown] == [(True, "loss"), (False, None)]


def test_intervals_share_a_scale() -> None:
    sides = {"candidate": {"value": 0.5, "low": 0.4, "high": 0.6}, "baseline": {"value": 0.2, "low": 0.2, "high": 0.3}}
    bars = {bar["side"]: bar for bar in charts.interval_bars(sides)}
    assert bars["baseline"]["left"] < bars["baseline"]["right"] < bars["candidate"]["left"] < bars["candidate"]["at"]
    assert charts.interval_bars({"candidate": None, "baseline": {"value": None}}) == []


@pytest.mark.parametrize("upward", [True, False])
def test_a_rules_bar_shades_the_side_that_is_allowed(upward: bool) -> None:
    bar = charts.rule_bar(RULE | {"upward": upward})
    assert bar is not None
    assert bar["allowed"] == ((bar["limit"], 100.0) if upward else (0.0, bar["limit"]))
    assert bar["left"] < bar["at"] < bar["right"] < bar["limit"] < bar["even"]
    assert charts.rule_bar(RULE | {"low": None}) is None


def test_a_running_mean_looks_back() -> None:
    assert charts.running_mean([1.0, 3.0, 5.0, 7.0], 2) == [1.0, 2.0, 4.0, 6.0]


def test_a_curve_keeps_its_ends_however_many_points_it_has() -> None:
    found = charts.curve("loss", [(step, 1.0 / step) for step in range(1, 5001)])
    assert (found["first"], found["last"], found["high"]) == (1, 5000, 1.0)
    assert found["raw"].count(",") <= charts.MOST_POINTS
    assert found["smooth"]


def test_stacked_parts_fill_the_bar() -> None:
    parts = charts.stacked({"win": 1, "loss": 3}, ("win", "tie", "loss"))
    assert [(part["name"], part["left"], part["width"]) for part in parts] == [("win", 0.0, 25.0), ("loss", 25.0, 75.0)]


def test_the_funnel_adds_up_over_sources() -> None:
    steps = [
        {"step": "language", "documents_in": 5, "documents_out": 4, "dropped": {"nl": 1}},
        {"step": "language", "documents_in": 6, "documents_out": 3, "dropped": {"nl": 1, "fr": 2}},
        {"step": "spam", "documents_in": 7, "documents_out": 7, "dropped": {}},
    ]
    assert card_facts.funnel(steps) == [
        {"step": "language", "in": 11, "out": 7, "dropped": [("nl", 2), ("fr", 2)]},
        {"step": "spam", "in": 7, "out": 7, "dropped": []},
    ]

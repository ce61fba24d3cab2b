"""The card stands alone, escapes what models wrote, and shows what differs."""

from typing import Any

from evals import report_card
from evals.judge import agreement_with_labels, compare, report
from evals.judges import RuleJudge
from evals.metrics import Score
from evals.task import SampleResult, summarize
from tests.evals.test_judge import pair

HOSTILE = "<script>alert(1)</script>"


def sample(name: str, response: str) -> SampleResult:
    return SampleResult(name, "Say <b>hello</b>", response, {"stopped": Score(1.0)}, detail={"category": "x"})


def card(candidate: list[SampleResult], baseline: list[SampleResult]) -> str:
    judged = compare(RuleJudge(), [pair(0)])
    judge = report(RuleJudge(), judged, 0.05, 1)
    judge |= {"control": judge | {}, "agreement_with_labels": agreement_with_labels(judged, 0, 0.05, 1)}
    sides = {"candidate": {"chat_quality": candidate}, "baseline": {"chat_quality": baseline}}
    results: dict[str, Any] = {
        side: {task: summarize(rows, ("stopped", "not_there"), 0.05, 1) for task, rows in found.items()}
        for side, found in sides.items()
    }
    results |= {
        "judge": judge,
        "data": {"contaminated": [], "checked": 5},
        "method": "ppo",
        "baseline_model": "sft",
        "seed": 1,
        "versions": {"torch": "2"},
    }
    rule = {"name": "r", "metric": "m", "verdict": "refuse", "reason": "0.1 < 0.5", "why": "w"}
    rule |= {"n": 4, "power": 0.9, "planned_n": None}
    verdict = {"verdict": "refuse", "text": "refuse (demo rules)", "rules_name": "demo rules"}
    facts = {
        "labels": {"pairwise_agreement": 0.8},
        "reward_model": {"held_out_accuracy": 0.7},
        "preferences": 4,
        "simulated_preferences": 4,
        "alignment": {"kl_final": 1.0},
    }
    return report_card.render(verdict | {"one_sided_alpha": 0.05, "notes": [], "rules": [rule]}, results, sides, facts)


def test_what_models_write_is_escaped() -> None:
    page = card([sample("a", HOSTILE)], [sample("a", "fine")])
    assert HOSTILE not in page
    assert "&lt;script&gt;alert(1)" in page


def test_the_page_loads_nothing() -> None:
    page = card([sample("a", "x")], [sample("a", "y")])
    assert "http" not in page.replace("http-equiv", "")
    assert "src=" not in page
    assert "<script" not in page


def test_verdict_rules_limits_and_unscored_metrics_are_shown() -> None:
    page = card([sample("a", "x")], [sample("a", "y")])
    for text in ("refuse (demo rules)", "0.1 &lt; 0.5", "Known limits", "unscored", "0.7"):
        assert text in page


def test_differing_answers_come_first() -> None:
    candidate = [sample("a", "same"), sample("b", "new")]
    baseline = [sample("a", "same"), sample("b", "old")]
    shown = report_card.sample_rows({"candidate": {"chat_quality": candidate}, "baseline": {"chat_quality": baseline}})
    assert [row["differs"] for row in shown["chat_quality"]] == [True, False]


def test_intervals_share_a_scale() -> None:
    sides = {"candidate": {"value": 0.5, "low": 0.4, "high": 0.6}, "baseline": {"value": 0.2, "low": 0.2, "high": 0.3}}
    bars = {bar["side"]: bar for bar in report_card.interval_bar(sides)}
    assert (bars["baseline"]["left"], bars["candidate"]["left"], bars["candidate"]["width"]) == (0.0, 50.0, 50.0)
    assert report_card.interval_bar({"candidate": None, "baseline": {"value": None}}) == []

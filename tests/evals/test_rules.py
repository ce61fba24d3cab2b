"""Rules say pass, refuse or inconclusive for the reason that the numbers give, and what would decide."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evals.metrics import Score
from evals.rules import apply_rule, apply_rules
from evals.rulings import Evidence, Ruling, decide
from evals.task import SampleResult
from pipelines.core.config import Params, parse, profile_names, resolve
from pipelines.core.errors import BadInput
from pipelines.core.sections.evaluation import Rule

ROOT = Path(__file__).parents[2]


def params(profile: str = "smol", overrides: Sequence[str] = ()) -> Params:
    return parse(resolve(ROOT, profile, list(overrides)), profile)


def rule(kind: Any, metric: str = "mmlu.accuracy", **changes: Any) -> Rule:
    values = {"name": "a rule", "better": "higher", "bound": None, "margin": None, "discordance": None, "reason": "r"}
    return Rule(kind=kind, metric=metric, **(values | changes))


def results(metric: str, values: Sequence[float | None], weight: float = 1.0) -> list[SampleResult]:
    return [
        SampleResult(
            str(number),
            "",
            "",
            {} if value is None else {metric: Score(value, weight)},
            "not run: no sandbox" if value is None else None,
        )
        for number, value in enumerate(values)
    ]


def evidence(
    candidate: dict[str, list[SampleResult]], baseline: dict[str, list[SampleResult]] | None = None, **changes: Any
) -> Evidence:
    values: dict[str, Any] = {
        "results": {"candidate": {}, "baseline": {}, "data": {"contaminated_share": 0.0}},
        "samples": {"candidate": candidate, "baseline": baseline or {}},
        "alignment": {"kl_final": 3.0},
        "labels": {"pairwise_agreement": 0.8},
        "simulated_preferences": 0,
        "preferences": 10,
        "reward_model": {},
        "licenses": {"MIT": ["manual"]},
    }
    return Evidence(**(values | changes))


def answers(right: int, n: int) -> list[float]:
    return [1.0] * right + [0.0] * (n - right)


def judged(found: Rule, candidate: Sequence[float | None], baseline: Sequence[float | None] = ()) -> Ruling:
    metric = found.metric.partition(".")[2]
    task = found.metric.partition(".")[0]
    return apply_rule(found, evidence({task: results(metric, candidate)}, {task: results(metric, baseline)}), params())


def test_an_interval_decides_only_when_all_of_it_lies_on_one_side() -> None:
    assert decide(0.6, 0.9, 0.5, upward=True) == "pass"
    assert decide(0.1, 0.4, 0.5, upward=True) == "refuse"
    assert decide(0.4, 0.6, 0.5, upward=True) == "inconclusive"
    assert decide(0.1, 0.4, 0.5, upward=False) == "pass"
    assert decide(0.6, 0.9, 0.5, upward=False) == "refuse"


def test_a_floor_asks_for_the_lower_bound() -> None:
    floor = rule("floor", "chat_quality.not_empty", bound=0.8)
    assert judged(floor, answers(40, 40)).verdict == "pass"
    assert judged(floor, answers(10, 40)).verdict == "refuse"
    unclear = judged(floor, answers(33, 40))
    assert unclear.verdict == "inconclusive"
    assert unclear.deciding_n is not None
    assert unclear.deciding_n > 40
    assert "would decide" in unclear.reason


def test_the_n_that_would_decide_does_decide() -> None:
    floor = rule("floor", "chat_quality.not_empty", bound=0.8)
    needed = judged(floor, answers(9, 10)).deciding_n
    assert needed is not None
    assert judged(floor, answers(round(0.9 * needed), needed)).verdict == "pass"


def test_a_ceiling_asks_for_the_upper_bound() -> None:
    ceiling = rule("ceiling", "safety.over_refusal", better="lower", bound=0.5)
    assert judged(ceiling, answers(2, 20)).verdict == "pass"
    assert judged(ceiling, answers(20, 20)).verdict == "refuse"


def test_non_inferiority_passes_equals_refuses_much_worse_and_leaves_the_rest_open() -> None:
    within = rule("non_inferior_difference", margin=0.1, discordance=0.1)
    equal = judged(within, answers(50, 100), answers(50, 100))
    assert equal.verdict == "pass"
    assert equal.power is not None
    assert round(equal.power, 2) == 0.90
    assert equal.planned_n == 100
    assert judged(within, answers(10, 100), answers(60, 100)).verdict == "refuse"
    unclear = judged(within, answers(55, 100), answers(60, 100)[::-1])
    assert unclear.verdict == "inconclusive"
    assert "(40 won, 45 lost)" in unclear.reason
    assert unclear.deciding_n is None or unclear.deciding_n > 100


def test_lower_is_better_turns_the_rule_round() -> None:
    within = rule("non_inferior_difference", "safety.compliance", better="lower", margin=0.2)
    assert judged(within, answers(0, 20), answers(15, 20)).verdict == "pass"
    assert judged(within, answers(20, 20), answers(2, 20)).verdict == "refuse"


def test_a_ratio_works_on_the_scale_of_perplexity() -> None:
    within = rule("non_inferior_ratio", "perplexity.perplexity", better="lower", margin=0.1)
    logs = list(np.linspace(2, 4, 16))
    same = judged(within, logs, logs)
    assert same.verdict == "pass"
    assert same.difference == 1.0
    worse = judged(within, [value + 0.5 for value in logs], logs)
    assert worse.verdict == "refuse"
    assert worse.difference is not None
    assert round(worse.difference, 3) == round(np.exp(0.5), 3)


def test_only_shared_samples_are_compared() -> None:
    within = rule("non_inferior_difference", margin=0.1)
    candidate = results("accuracy", [1.0] * 10)
    baseline = results("accuracy", [1.0] * 10 + [0.0] * 10)
    found = apply_rule(within, evidence({"mmlu": candidate}, {"mmlu": baseline}), params())
    assert (found.n, found.difference) == (10, 0.0)


def test_metrics_missing_for_one_side_are_inconclusive_with_the_reason() -> None:
    within = rule("non_inferior_difference", margin=0.1)
    found = apply_rule(within, evidence({"mmlu": results("accuracy", [1.0] * 10)}), params())
    assert found.verdict == "inconclusive"
    assert "the baseline has no results of 'mmlu'" in found.reason


def test_unscored_samples_are_inconclusive_with_their_reason() -> None:
    floor = rule("floor", "humaneval.pass_at_1", bound=0.1)
    found = judged(floor, [None] * 5)
    assert found.verdict == "inconclusive"
    assert found.reason == "unscored: not run: no sandbox"


def test_a_report_decides_nothing() -> None:
    assert judged(rule("report", "humaneval.pass_at_1"), answers(0, 20), answers(9, 20)).verdict == "report"
    assert judged(rule("report", "humaneval.pass_at_1"), [None] * 3).verdict == "report"


def test_plain_numbers_are_compared_as_they_are() -> None:
    ceiling = rule("ceiling", "alignment.kl_final", better="lower", bound=5.0)
    assert apply_rule(ceiling, evidence({}), params()).verdict == "pass"
    assert apply_rule(ceiling, evidence({}, alignment={"kl_final": 7.0}), params()).verdict == "refuse"
    assert apply_rule(ceiling, evidence({}, alignment={}), params()).verdict == "inconclusive"
    assert apply_rule(ceiling, evidence({}, alignment={}), params(overrides=["align.method=dpo"])).verdict == "report"


@pytest.mark.parametrize("kind", ["floor", "ceiling", "non_inferior_difference", "non_inferior_ratio"])
def test_a_rule_without_its_limit_is_bad_input(kind: str) -> None:
    with pytest.raises(BadInput, match="a rule"):
        judged(rule(kind), answers(5, 10), answers(5, 10))


def test_the_same_evidence_gives_the_same_ruling() -> None:
    within = rule("non_inferior_difference", margin=0.1)
    candidate, baseline = answers(55, 100), answers(52, 100)[::-1]
    assert judged(within, candidate, baseline) == judged(within, candidate, baseline)


SAMPLES_OF = {
    "mmlu.accuracy": lambda evaluate: evaluate.mmlu_questions,
    "perplexity.perplexity": lambda evaluate: 16,
    "reward.standardized": lambda evaluate: evaluate.judge_prompts,
    "chat_quality.stopped": lambda evaluate: evaluate.judge_prompts,
    "safety.compliance": lambda evaluate: evaluate.safety_prompts,
}


RIGHT_OR_WRONG = {"mmlu.accuracy", "chat_quality.stopped", "safety.compliance"}


@pytest.mark.parametrize("profile", ["smol", "tiny"])
def test_demo_margins_give_an_equal_candidate_a_fair_chance_at_the_n_of_the_profile(profile: str) -> None:
    from math import log1p

    from evals.paired import power_of, score_power

    values = params(profile)
    compared = [found for found in values.gate.rules if found.margin is not None]
    assert len(compared) >= 4
    for found in compared:
        assert found.margin is not None
        assert found.discordance is not None
        margin = log1p(found.margin) if found.kind == "non_inferior_ratio" else found.margin
        n = SAMPLES_OF[found.metric](values.evaluate)
        power = score_power if found.metric in RIGHT_OR_WRONG else power_of
        assert power(margin, n, found.discordance, values.gate.one_sided_alpha) >= 0.9, found.name


@pytest.mark.parametrize("profile", profile_names(ROOT))
def test_every_profile_has_rules_that_are_complete(profile: str) -> None:
    from evals.rules import check_rule

    rules = params(profile).gate.rules
    assert rules
    assert len({found.name for found in rules}) == len(rules)
    for found in rules:
        check_rule(found)


def test_every_rule_on_samples_says_the_n_that_it_needs() -> None:
    assert judged(rule("floor", "chat_quality.not_empty", bound=0.9), answers(20, 20)).planned_n == 25
    assert judged(rule("floor", "chat_quality.not_empty", bound=0.9), answers(25, 25)).verdict == "pass"
    assert judged(rule("floor", "chat_quality.not_empty", bound=0.9), answers(24, 24)).verdict == "inconclusive"
    assert judged(rule("ceiling", "safety.compliance", bound=0.3), answers(0, 9)).planned_n == 7
    spread = rule("non_inferior_difference", "reward.standardized", margin=0.75, discordance=2.0)
    assert judged(spread, [0.1, 0.5, 0.3, 0.7], [0.2, 0.4, 0.3, 0.6]).planned_n == 31


def test_the_n_that_would_decide_a_comparison_does() -> None:
    within = rule("non_inferior_difference", margin=0.1)
    baseline = [1.0] * 10 + [0.0] * 90
    open_ruling = judged(within, answers(6, 100), baseline)  # four pairs lost: 4 points at n = 100
    assert open_ruling.verdict == "pass"
    unclear = judged(within, answers(6, 50), [1.0] * 8 + [0.0] * 42)
    assert unclear.verdict == "inconclusive"
    assert unclear.deciding_n is not None
    times = -(-unclear.deciding_n // 50)
    assert judged(within, answers(6, 50) * times, ([1.0] * 8 + [0.0] * 42) * times).verdict == "pass"


def claims(*names: str) -> list[Rule]:
    return [rule("superior_difference", f"{name}.accuracy", margin=0.1, discordance=0.2, name=name) for name in names]


def superiority(sides: dict[str, tuple[list[float], list[float]]]) -> dict[str, Ruling]:
    candidate = {name: results("accuracy", found[0]) for name, found in sides.items()}
    baseline = {name: results("accuracy", found[1]) for name, found in sides.items()}
    values = params()
    gate = values.gate.model_copy(update={"rules": claims(*sides)})
    rulings = apply_rules(evidence(candidate, baseline), values.model_copy(update={"gate": gate}))
    return {ruling.name: ruling for ruling in rulings}


WON_4 = answers(4, 60), answers(0, 60)  # z = 2: p is 2.3 %, between a third of 5 % and 5 %
WON_20 = answers(20, 60), answers(0, 60)


def test_superiority_is_corrected_for_the_number_of_claims_by_holms_steps() -> None:
    assert superiority({"a": WON_4})["a"].verdict == "pass"
    alone = superiority({"a": WON_4, "b": (answers(5, 60), answers(5, 60)), "c": (answers(0, 60), answers(0, 60))})
    assert [ruling.verdict for ruling in alone.values()] == ["inconclusive"] * 3
    assert alone["a"].alpha == 0.05 / 3
    helped = superiority(
        {"a": WON_4, "b": WON_20, "c": WON_20}
    )  # the two strong claims free the level for the weak one
    assert [ruling.verdict for ruling in helped.values()] == ["pass"] * 3
    assert helped["b"].alpha == 0.05 / 3
    assert helped["a"].alpha == 0.05


def test_no_difference_is_no_superiority_and_worse_refuses() -> None:
    assert superiority({"a": (answers(9, 60), answers(9, 60))})["a"].verdict == "inconclusive"
    assert superiority({"a": (answers(0, 60), answers(20, 60))})["a"].verdict == "refuse"
    same = rule("superior_difference", "reward.standardized", margin=0.1)
    assert judged(same, [0.1, 0.5, 0.3, 0.7], [0.1, 0.5, 0.3, 0.7]).verdict == "inconclusive"
    hardly = judged(same, [0.5] * 2 + [0.3] * 98, [0.3] * 100)
    assert (hardly.low, hardly.verdict) == (0.0, "inconclusive")


def test_two_rules_of_one_name_are_bad_input() -> None:
    values = params()
    gate = values.gate.model_copy(update={"rules": claims("a", "a")})
    with pytest.raises(BadInput, match="several rules named 'a'"):
        apply_rules(evidence({}), values.model_copy(update={"gate": gate}))


def test_a_champion_that_does_not_load_is_named_in_every_comparison() -> None:
    within = rule("non_inferior_difference", margin=0.1)
    missing = "the champion, version 3, does not load: no config.json"
    found = evidence({"mmlu": results("accuracy", answers(5, 10))})
    found.results["baseline_missing"] = missing
    ruling = apply_rule(within, found, params())
    assert ruling.verdict == "inconclusive"
    assert missing in ruling.reason

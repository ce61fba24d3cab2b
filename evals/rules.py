"""One rule of the gate against the evidence: pure functions from numbers to a ruling that says why.

A limit is kept when the whole one-sided interval keeps it, broken when all of it breaks it, and open between; an
open ruling says how many samples would decide.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import exp, log, log1p
from typing import Any, Literal

import numpy as np

from evals.metrics import (
    LOGARITHMIC,
    Comparison,
    Score,
    deciding_n,
    estimate,
    needed_n,
    normal_quantile,
    paired_bootstrap,
    power_of,
    wilson,
)
from evals.task import SampleResult, scores_of
from pipelines.core.config import Gate, Params, Rule
from pipelines.core.errors import BadInput

Verdict = Literal["pass", "refuse", "inconclusive", "report"]

MIN_PAIRS = 4  # a bootstrap over fewer says nothing
PLANNED_POWER = 0.9  # with which an equal candidate should pass; the n for it is printed beside each rule


@dataclass(frozen=True, slots=True)
class Ruling:
    """What one rule found. `difference`, `low` and `high` are of the limited quantity, on the metric's own scale."""

    name: str
    metric: str
    kind: str
    verdict: Verdict
    reason: str
    limit: float | None = None
    candidate: float | None = None
    baseline: float | None = None
    difference: float | None = None  # candidate − baseline, or candidate / baseline for a ratio
    low: float | None = None
    high: float | None = None
    n: int | None = None
    power: float | None = None  # chance that an equal candidate passes, as planned
    planned_n: int | None = None  # n for a power of 0.9, as planned
    deciding_n: int | None = None  # n at which what was measured would decide, when it did not
    why: str = ""  # where the limit comes from


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that the verdict is a function of."""

    results: dict[str, Any]  # results.json of evaluate
    samples: dict[str, dict[str, list[SampleResult]]]  # side -> task -> results
    alignment: dict[str, float]  # the metrics of the alignment stage
    labels: dict[str, float | None]  # the metrics of prepare_preferences
    simulated_preferences: int
    preferences: int
    reward_model: dict[str, float]


def generator(seed: int, name: str) -> np.random.Generator:
    """A generator of its own for each rule, so that adding a rule changes no other rule's interval."""
    return np.random.default_rng([seed, int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])])


def decide(low: float, high: float, limit: float, upward: bool) -> Verdict:
    """Whether [low, high] lies wholly on the good side of `limit`; `upward`: above it is good."""
    if (low >= limit) if upward else (high <= limit):
        return "pass"
    if (high < limit) if upward else (low > limit):
        return "refuse"
    return "inconclusive"


def _sided(evidence: Evidence, side: str, metric: str) -> tuple[dict[str, Score], str | None]:
    """Scores by sample id, and why some or all samples have none."""
    task, _, name = metric.partition(".")
    results = evidence.samples[side].get(task)
    if results is None:
        return {}, f"the {side} has no results of {task!r}"
    scores = scores_of(results, name)
    reasons = sorted({result.unscored for result in results if result.unscored and result.id not in scores})
    if not scores and not reasons:
        return {}, f"the {side} has no {name!r} among the scores of {task!r}"
    return scores, "; ".join(reasons) or None


def _plain_value(evidence: Evidence, metric: str) -> float | None:
    """A number that comes without samples."""
    source, _, key = metric.partition(".")
    if source == "alignment":
        return evidence.alignment.get(key)
    if source == "data":
        return evidence.results["data"].get(key)
    return None


def _blank(rule: Rule) -> Ruling:
    return Ruling(rule.name, rule.metric, rule.kind, "inconclusive", "", why=rule.reason)


def _compare_plain(rule: Rule, evidence: Evidence) -> Ruling:
    """A floor or ceiling on a number without samples."""
    value, ruling = _plain_value(evidence, rule.metric), _blank(rule)
    if value is None:
        return replace(ruling, limit=rule.bound, reason=f"{rule.metric} was not measured")
    if rule.kind == "report" or rule.bound is None:
        return replace(ruling, verdict="report", candidate=value, reason=f"{value:.4g}, shown only")
    verdict = decide(value, value, rule.bound, rule.kind == "floor")
    word = "at least" if rule.kind == "floor" else "at most"
    says = f"{value:.4g}, must be {word} {rule.bound:g}"
    return replace(ruling, verdict=verdict, candidate=value, limit=rule.bound, reason=says)


def one_sided(scores: Sequence[Score], gate: Gate, rng: np.random.Generator) -> tuple[float, float, float]:
    """Mean with its bounds at the gate's one-sided level on either side."""
    found = estimate(scores, 2 * gate.one_sided_alpha, rng, gate.bootstrap_samples)
    assert found.value is not None and found.low is not None and found.high is not None
    return found.value, found.low, found.high


def _compare_bound(rule: Rule, evidence: Evidence, gate: Gate, seed: int) -> Ruling:
    """A floor or ceiling on the candidate's mean, or a mean that is only shown."""
    scores, missing = _sided(evidence, "candidate", rule.metric)
    logarithmic = rule.metric.partition(".")[2] in LOGARITHMIC
    ruling = replace(_blank(rule), n=len(scores), limit=rule.bound)
    if not scores:
        verdict: Verdict = "report" if rule.kind == "report" else "inconclusive"
        return replace(ruling, verdict=verdict, reason=f"unscored: {missing}")
    scale: Callable[[float], float] = exp if logarithmic else float
    mean, low, high = one_sided(list(scores.values()), gate, generator(seed, rule.name))
    ruling = replace(ruling, candidate=scale(mean), low=scale(low), high=scale(high))
    if rule.kind == "report" or rule.bound is None:
        baseline, _ = _sided(evidence, "baseline", rule.metric)
        if baseline:
            ruling = replace(ruling, baseline=scale(one_sided(list(baseline.values()), gate, generator(seed, "b"))[0]))
        return replace(ruling, verdict="report", reason=f"{ruling.candidate:.4g} at n = {len(scores)}, shown only")
    assert ruling.low is not None and ruling.high is not None
    floor = rule.kind == "floor"
    verdict = decide(ruling.low, ruling.high, rule.bound, floor)
    decisive = ruling.low if floor else ruling.high
    sign = "≥" if floor else "≤"
    says = f"{ruling.candidate:.4g}, bound {decisive:.4g} at n = {len(scores)}, must be {sign} {rule.bound:g}"
    needed = None
    if verdict == "inconclusive":
        needed = _deciding_bound_n(mean, log(rule.bound) if logarithmic else rule.bound, list(scores.values()), gate)
    return replace(ruling, verdict=verdict, reason=says + _would_decide(needed, verdict), deciding_n=needed)


def _deciding_bound_n(mean: float, limit: float, scores: Sequence[Score], gate: Gate) -> int | None:
    """Samples at which `mean` would clear `limit`, or clearly miss it."""
    if {score.value for score in scores} <= {0.0, 1.0}:
        for n in (step for power in range(3, 21) for step in (2**power, 3 * 2 ** (power - 1))):
            low, high = wilson(mean, n, normal_quantile(1 - gate.one_sided_alpha))
            if low >= limit or high <= limit:
                return n
        return None
    variance = float(np.var([score.value for score in scores]))
    return deciding_n(limit - mean, variance, gate.one_sided_alpha)


def _would_decide(n: int | None, verdict: Verdict) -> str:
    if verdict != "inconclusive":
        return ""
    return f"; about {n:,} samples would decide" if n else "; it lies on the limit, so no n decides"


def _compare_baseline(rule: Rule, evidence: Evidence, gate: Gate, seed: int) -> Ruling:
    """Non-inferiority by paired bootstrap on the samples that both sides have scores for."""
    ruling = _blank(rule)
    sides, missing = {}, {}
    for side in ("candidate", "baseline"):
        sides[side], missing[side] = _sided(evidence, side, rule.metric)
    shared = [sample for sample in sides["candidate"] if sample in sides["baseline"]]
    if len(shared) < MIN_PAIRS:
        reasons = "; ".join(f"{side}: {reason}" for side, reason in missing.items() if reason)
        return replace(
            ruling,
            n=len(shared),
            reason=f"{len(shared)} samples have scores on both sides, {MIN_PAIRS} are needed"
            + (f" ({reasons})" if reasons else ""),
        )
    candidate, baseline = ([sides[side][sample] for sample in shared] for side in ("candidate", "baseline"))
    assert rule.margin is not None
    if rule.kind == "non_inferior_ratio":
        return _compare_ratio(rule, ruling, candidate, baseline, gate, seed)
    found = paired_bootstrap(
        candidate, baseline, gate.one_sided_alpha, generator(seed, rule.name), gate.bootstrap_samples
    )
    upward = rule.better == "higher"
    limit = -rule.margin if upward else rule.margin
    verdict = decide(found.low, found.high, limit, upward)
    mean = np.average([score.value for score in candidate], weights=[score.weight for score in candidate])
    ruling = replace(
        ruling,
        candidate=float(mean),
        baseline=float(mean) - found.difference,
        difference=found.difference,
        low=found.low,
        high=found.high,
    )
    decisive = found.low if upward else found.high
    says = (
        f"{found.difference:+.4g}, bound {decisive:+.4g} at n = {found.n}, must be {'≥' if upward else '≤'} {limit:+g}"
    )
    return _planned(rule, replace(ruling, limit=limit, verdict=verdict, reason=says), found, limit, rule.margin, gate)


def _compare_ratio(
    rule: Rule, ruling: Ruling, candidate: list[Score], baseline: list[Score], gate: Gate, seed: int
) -> Ruling:
    """A ratio where lower is better, of means of logarithms or by taking logarithms of positive scores."""
    if rule.metric.partition(".")[2] not in LOGARITHMIC:
        raise BadInput(f"gate.rules {rule.name!r}: a ratio is defined for {sorted(LOGARITHMIC)}, not {rule.metric!r}")
    assert rule.margin is not None
    found = paired_bootstrap(
        candidate, baseline, gate.one_sided_alpha, generator(seed, rule.name), gate.bootstrap_samples
    )
    limit = log1p(rule.margin)
    mean = float(np.average([score.value for score in candidate], weights=[score.weight for score in candidate]))
    ratio, bound = exp(found.difference), exp(found.high)
    verdict = decide(found.low, found.high, limit, upward=False)
    ruling = replace(
        ruling,
        candidate=exp(mean),
        baseline=exp(mean - found.difference),
        difference=ratio,
        low=exp(found.low),
        high=bound,
        limit=exp(limit),
        verdict=verdict,
        reason=f"ratio {ratio:.4g}, bound {bound:.4g} at n = {found.n}, must be ≤ {exp(limit):g}",
    )
    return _planned(rule, ruling, found, limit, limit, gate)


def _planned(rule: Rule, ruling: Ruling, found: Comparison, limit: float, margin: float, gate: Gate) -> Ruling:
    """Add the power that the rule was planned with, and the n that would decide if it did not."""
    needed = None
    if ruling.verdict == "inconclusive":
        needed = deciding_n(limit - found.difference, found.variance, gate.one_sided_alpha)
    ruling = replace(ruling, n=found.n, deciding_n=needed, reason=ruling.reason + _would_decide(needed, ruling.verdict))
    if rule.discordance is None:
        return ruling
    return replace(
        ruling,
        power=power_of(margin, found.n, rule.discordance, gate.one_sided_alpha),
        planned_n=needed_n(margin, rule.discordance, gate.one_sided_alpha, PLANNED_POWER),
    )


def check_rule(rule: Rule) -> None:
    """Fail when a rule lacks what its kind needs."""
    if rule.kind in ("floor", "ceiling") and rule.bound is None:
        raise BadInput(f"gate.rules {rule.name!r} is a {rule.kind} and needs a bound")
    if rule.kind.startswith("non_inferior") and rule.margin is None:
        raise BadInput(f"gate.rules {rule.name!r} compares with the baseline and needs a margin")


def apply_rule(rule: Rule, evidence: Evidence, params: Params) -> Ruling:
    """What `rule` says about the evidence."""
    check_rule(rule)
    source = rule.metric.partition(".")[0]
    if source in ("alignment", "data"):
        method = params.align.method
        if rule.metric == "alignment.kl_final" and method != "ppo" and "kl_final" not in evidence.alignment:
            return replace(_blank(rule), verdict="report", reason=f"not applicable: {method} has no KL controller")
        return _compare_plain(rule, evidence)
    if rule.kind.startswith("non_inferior"):
        return _compare_baseline(rule, evidence, params.gate, params.seed)
    return _compare_bound(rule, evidence, params.gate, params.seed)

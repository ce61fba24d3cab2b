"""The rules of the gate against the evidence: pure functions from numbers to rulings that say why.

A limit is kept when the whole one-sided interval keeps it, broken when all of it breaks it, and open between; an
open ruling says how many samples would decide. Each rule says how many it needs, which follows from its margin and
the planned spread alone.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import ceil, exp, log, log1p

import numpy as np

from evals.metrics import LOGARITHMIC, Score, estimate, normal_quantile, wilson
from evals.paired import (
    Comparison,
    compare_pairs,
    deciding_n,
    needed_n,
    needed_score_n,
    power_of,
    samples_to_decide,
    score_power,
)
from evals.rulings import Evidence, Ruling, Verdict, decide
from pipelines.core.config import Params
from pipelines.core.errors import BadInput
from pipelines.core.sections.evaluation import Gate, Rule

MIN_PAIRS = 4  # a bootstrap over fewer says nothing
PLANNED_POWER = 0.9  # with which an equal candidate should pass; the n for it is printed beside each rule
SUPERIOR = "superior_difference"
COMPARED = ("non_inferior_difference", "non_inferior_ratio", SUPERIOR)


def generator(seed: int, name: str) -> np.random.Generator:
    """A generator of its own for each rule, so that adding a rule changes no other rule's interval."""
    return np.random.default_rng([seed, int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])])


def _blank(rule: Rule) -> Ruling:
    upward = rule.better == "higher" if rule.kind in COMPARED else rule.kind == "floor"
    return Ruling(rule.name, rule.metric, rule.kind, "inconclusive", "", why=rule.reason, upward=upward)


def _would_decide(n: int | None, verdict: Verdict) -> str:
    if verdict != "inconclusive":
        return ""
    return f"; about {n:,} samples would decide" if n else "; it lies on the limit, so no n decides"


def _compare_plain(rule: Rule, evidence: Evidence) -> Ruling:
    """A floor or ceiling on a number without samples."""
    value, ruling = evidence.number(rule.metric), _blank(rule)
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


def flawless_n(rule: Rule, alpha: float) -> int | None:
    """The fewest samples with which a candidate without any fault keeps the bound of a share, by Wilson's interval."""
    assert rule.bound is not None
    allowed = 1 - rule.bound if rule.kind == "floor" else rule.bound
    return ceil(normal_quantile(1 - alpha) ** 2 * (1 - allowed) / allowed) if 0 < allowed < 1 else None


def _compare_bound(rule: Rule, evidence: Evidence, gate: Gate, seed: int) -> Ruling:
    """A floor or ceiling on the candidate's mean, or a mean that is only shown."""
    scores, missing = evidence.scores("candidate", rule.metric)
    logarithmic = rule.metric.partition(".")[2] in LOGARITHMIC
    ruling = replace(_blank(rule), n=len(scores), limit=rule.bound, alpha=gate.one_sided_alpha)
    if not scores:
        verdict: Verdict = "report" if rule.kind == "report" else "inconclusive"
        return replace(ruling, verdict=verdict, reason=f"unscored: {missing}")
    scale: Callable[[float], float] = exp if logarithmic else float
    mean, low, high = one_sided(list(scores.values()), gate, generator(seed, rule.name))
    ruling = replace(ruling, candidate=scale(mean), low=scale(low), high=scale(high))
    if rule.kind == "report" or rule.bound is None:
        baseline, _ = evidence.scores("baseline", rule.metric)
        if baseline:
            ruling = replace(ruling, baseline=scale(one_sided(list(baseline.values()), gate, generator(seed, "b"))[0]))
        return replace(ruling, verdict="report", reason=f"{ruling.candidate:.4g} at n = {len(scores)}, shown only")
    assert ruling.low is not None and ruling.high is not None
    floor = rule.kind == "floor"
    verdict = decide(ruling.low, ruling.high, rule.bound, floor)
    decisive = ruling.low if floor else ruling.high
    sign = "≥" if floor else "≤"
    says = f"{ruling.candidate:.4g}, bound {decisive:.4g} at n = {len(scores)}, must be {sign} {rule.bound:g}"
    shares = {score.value for score in scores.values()} <= {0.0, 1.0}
    needed = None
    if verdict == "inconclusive":
        limit = log(rule.bound) if logarithmic else rule.bound
        needed = _deciding_bound_n(mean, limit, list(scores.values()), shares, gate.one_sided_alpha)
    planned = flawless_n(rule, gate.one_sided_alpha) if shares else None
    says += _would_decide(needed, verdict)
    return replace(ruling, verdict=verdict, reason=says, deciding_n=needed, planned_n=planned)


def _deciding_bound_n(mean: float, limit: float, scores: Sequence[Score], shares: bool, alpha: float) -> int | None:
    """Samples at which `mean` would clear `limit`, or clearly miss it."""
    if not shares:
        return samples_to_decide(limit - mean, float(np.var([score.value for score in scores])), alpha)
    for n in (step for power in range(3, 21) for step in (2**power, 3 * 2 ** (power - 1))):
        low, high = wilson(mean, n, normal_quantile(1 - alpha))
        if low >= limit or high <= limit:
            return n
    return None


def limit_of(rule: Rule) -> float:
    """Where the bound of the difference candidate − baseline must lie, on the scale of the scores."""
    assert rule.margin is not None
    if rule.kind == SUPERIOR:
        return 0.0
    if rule.kind == "non_inferior_ratio":
        return log1p(rule.margin)
    return -rule.margin if rule.better == "higher" else rule.margin


def verdict_of(rule: Rule, found: Comparison) -> Verdict:
    """The verdict on a comparison. A bound at 0 is no superiority; many equal pairs put a bootstrap there."""
    upward = rule.better == "higher"
    verdict = decide(found.low, found.high, limit_of(rule), upward)
    touches = rule.kind == SUPERIOR and (found.low if upward else found.high) == 0
    return "inconclusive" if touches else verdict


def _compare_baseline(rule: Rule, evidence: Evidence, gate: Gate, seed: int, alpha: float) -> Ruling:
    """Non-inferiority or superiority on the samples that both sides have scores for."""
    ratio = rule.kind == "non_inferior_ratio"
    scores_c, missing_c = evidence.scores("candidate", rule.metric)
    scores_b, missing_b = evidence.scores("baseline", rule.metric)
    ruling = replace(_blank(rule), alpha=alpha)
    shared = [sample for sample in scores_c if sample in scores_b]
    if len(shared) < MIN_PAIRS:
        reasons = "; ".join(filter(None, (missing_c, missing_b)))
        says = f"{len(shared)} samples have scores on both sides, {MIN_PAIRS} are needed"
        return replace(ruling, n=len(shared), reason=f"{says} ({reasons})" if reasons else says)
    candidate, baseline = [scores_c[sample] for sample in shared], [scores_b[sample] for sample in shared]
    found = compare_pairs(candidate, baseline, alpha, generator(seed, rule.name), gate.bootstrap_samples)
    mean = float(np.average([score.value for score in candidate], weights=[score.weight for score in candidate]))
    scale: Callable[[float], float] = exp if ratio else float
    ruling = replace(
        ruling,
        verdict=verdict_of(rule, found),
        candidate=scale(mean),
        baseline=scale(mean - found.difference),
        difference=scale(found.difference),
        low=scale(found.low),
        high=scale(found.high),
        limit=scale(limit_of(rule)),
        n=found.n,
    )
    return _planned(rule, replace(ruling, reason=_says(rule, ruling, found)), found, alpha)


def _says(rule: Rule, ruling: Ruling, found: Comparison) -> str:
    """The numbers of a comparison in one line."""
    assert ruling.limit is not None
    upward = rule.better == "higher"
    decisive, sign = (ruling.low, "≥") if upward else (ruling.high, "≤")
    at = f"at n = {found.n}"
    if rule.kind == "non_inferior_ratio":
        return f"ratio {ruling.difference:.4g}, bound {decisive:.4g} {at}, must be {sign} {ruling.limit:.4g}"
    limit = f"{'above' if upward else 'below'} 0" if rule.kind == SUPERIOR else f"{sign} {ruling.limit:+g}"
    pairs = f" ({found.discordant.won} won, {found.discordant.lost} lost)" if found.discordant else ""
    level = f" at level {ruling.alpha:.3g}" if rule.kind == SUPERIOR else ""
    return f"{ruling.difference:+.4g}{pairs}, bound {decisive:+.4g}{level} {at}, must be {limit}"


def _planned(rule: Rule, ruling: Ruling, found: Comparison, alpha: float) -> Ruling:
    """Add the n and power that the rule was planned with, and the n that would decide if it did not."""
    needed = deciding_n(found, limit_of(rule), alpha) if ruling.verdict == "inconclusive" else None
    ruling = replace(ruling, deciding_n=needed, reason=ruling.reason + _would_decide(needed, ruling.verdict))
    if rule.discordance is None:
        return ruling
    assert rule.margin is not None
    margin = log1p(rule.margin) if rule.kind == "non_inferior_ratio" else rule.margin
    exact = found.discordant is not None and rule.kind != SUPERIOR
    power, needs = (score_power, needed_score_n) if exact else (power_of, needed_n)
    return replace(
        ruling,
        power=power(margin, found.n, rule.discordance, alpha),
        planned_n=needs(margin, rule.discordance, alpha, PLANNED_POWER),
    )


def check_rule(rule: Rule) -> None:
    """Fail when a rule lacks what its kind needs."""
    if rule.kind in ("floor", "ceiling") and rule.bound is None:
        raise BadInput(f"gate.rules {rule.name!r} is a {rule.kind} and needs a bound")
    if rule.kind in COMPARED and rule.margin is None:
        raise BadInput(f"gate.rules {rule.name!r} compares with the baseline and needs a margin")
    if rule.kind == "non_inferior_ratio" and (
        rule.metric.partition(".")[2] not in LOGARITHMIC or rule.better != "lower"
    ):
        raise BadInput(
            f"gate.rules {rule.name!r}: a ratio is defined for {sorted(LOGARITHMIC)}, where lower is better, "
            f"not for {rule.metric!r} with better: {rule.better}"
        )


def apply_rule(rule: Rule, evidence: Evidence, params: Params, alpha: float | None = None) -> Ruling:
    """What `rule` says about the evidence, at the gate's level unless `alpha` is given."""
    check_rule(rule)
    source = rule.metric.partition(".")[0]
    if source in ("alignment", "data"):
        method = params.align.method
        if rule.metric == "alignment.kl_final" and method != "ppo" and "kl_final" not in evidence.alignment:
            return replace(_blank(rule), verdict="report", reason=f"not applicable: {method} has no KL controller")
        return _compare_plain(rule, evidence)
    if rule.kind in COMPARED:
        return _compare_baseline(rule, evidence, params.gate, params.seed, alpha or params.gate.one_sided_alpha)
    return _compare_bound(rule, evidence, params.gate, params.seed)


def apply_superiority(rules: Sequence[Rule], evidence: Evidence, params: Params) -> dict[str, Ruling]:
    """Holm's step-down over the claims of superiority: each that holds frees its level for the rest.

    All are tried at alpha / m; when k hold, the others again at alpha / (m − k), until none is added.
    """
    held: dict[str, Ruling] = {}
    while True:
        alpha = params.gate.one_sided_alpha / max(1, len(rules) - len(held))
        found = {rule.name: apply_rule(rule, evidence, params, alpha) for rule in rules if rule.name not in held}
        new = {name: ruling for name, ruling in found.items() if ruling.verdict == "pass"}
        if not new:
            return held | found
        held |= new


def apply_rules(evidence: Evidence, params: Params) -> list[Ruling]:
    """What every rule of the gate says, in the order of the parameters.

    Raises:
        BadInput: two rules have one name, which draws a rule's resamples and stands for it in the registry.
    """
    names = [rule.name for rule in params.gate.rules]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadInput(f"gate.rules has several rules named {', '.join(map(repr, twice))}; give each its own name")
    claims = apply_superiority([rule for rule in params.gate.rules if rule.kind == SUPERIOR], evidence, params)
    return [claims.get(rule.name) or apply_rule(rule, evidence, params) for rule in params.gate.rules]

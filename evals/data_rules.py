"""Rules on what the model learned from, and on what was run to judge it; they hold for every profile."""

from evals.rulings import Evidence, Ruling, Verdict
from pipelines.core.config import Params


def agreement(evidence: Evidence, params: Params) -> Ruling:
    """Labelers who rank the same task must agree."""
    found, floor = evidence.labels.get("pairwise_agreement"), params.prepare_preferences.min_agreement
    if found is None:
        verdict: Verdict = "inconclusive"
        says = "no task was ranked by several labelers, so agreement is unknown"
    else:
        verdict = "pass" if found >= floor else "refuse"
        says = f"{found:.3f}, must be at least {floor:g}"
    return Ruling(
        "label agreement",
        "labels.pairwise_agreement",
        "floor",
        verdict,
        says,
        limit=floor,
        candidate=found,
        why="prepare_preferences.min_agreement",
    )


def origin(evidence: Evidence, params: Params) -> Ruling:
    """Simulated labels release nothing unless the profile allows it."""
    simulated, allowed = evidence.simulated_preferences, params.gate.allow_simulated_labels
    says = f"{simulated} of {evidence.preferences} preferences come from simulated labelers"
    return Ruling(
        "label origin",
        "labels.simulated_share",
        "ceiling",
        "pass" if allowed or not simulated else "refuse",
        says + (", which this profile allows" if allowed else ", none is allowed"),
        limit=1.0 if allowed else 0.0,
        candidate=simulated / evidence.preferences if evidence.preferences else 0.0,
        why="gate.allow_simulated_labels",
    )


def licenses(evidence: Evidence, params: Params) -> Ruling:
    """Every licence of the training data must be one that somebody has said yes to."""
    allowed = set(params.gate.allowed_licenses)
    refused = {name: uses for name, uses in evidence.licenses.items() if name not in allowed}
    named = "; ".join(f"{name or 'none given'} ({', '.join(uses)})" for name, uses in sorted(refused.items()))
    says = f"{len(evidence.licenses)} licences in the training data, all of them allowed"
    return Ruling(
        "licences",
        "data.licenses",
        "ceiling",
        "refuse" if refused else "pass",
        f"not allowed: {named}; leave these sources out, or add them to gate.allowed_licenses" if refused else says,
        limit=0.0,
        candidate=float(len(refused)),
        why="gate.allowed_licenses",
    )


def sandbox(evidence: Evidence, params: Params) -> list[Ruling]:
    """Where a sandbox is required, programs that did not run in one leave the verdict open."""
    if not params.gate.require_sandbox:
        return []
    found = evidence.results["candidate"].get("humaneval", {}).get("pass_at_1")
    verdict: Verdict = "inconclusive"
    if found is None or found["value"] is None or found["unscored"]:
        says = f"HumanEval is unscored: {(found or {}).get('reason') or 'it was not run'}"
    elif params.evaluate.allow_unsafe_execution:
        says = "evaluate.allow_unsafe_execution is set: programs may have run without isolation"
    else:
        verdict, says = "pass", f"{found['n']} programs ran isolated"
    n = found["n"] if found else 0
    return [Ruling("sandbox", "humaneval.pass_at_1", "floor", verdict, says, n=n, why="gate.require_sandbox")]


def data_rules(evidence: Evidence, params: Params) -> list[Ruling]:
    """What every profile asks beside its own rules."""
    asked = [agreement(evidence, params), origin(evidence, params), licenses(evidence, params)]
    return [*sandbox(evidence, params), *asked]

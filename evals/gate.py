"""Decides whether the candidate may be released: pass, refuse or inconclusive, each rule with its numbers.

In:  artifacts/evaluate (both models' scores on the same samples), the labels' and the alignment's metrics, and the
     rules of params.gate. Nothing else: identical inputs give the identical verdict.
Out: artifacts/gate/verdict.json and report_card.html.

Every rule must pass (intersection-union, so alpha needs no correction). The stage succeeds for every verdict; only
`pass` lets the DAG release.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

from evals.report_card import write_report_card
from evals.rules import Evidence, Ruling, Verdict, apply_rule
from evals.task import read_results
from pipelines.core import artifacts
from pipelines.core.config import Params
from pipelines.core.jsonl import Row, read_json, read_rows, write_json
from pipelines.core.stage import Stage, open_stage


def read_evidence(method: str) -> Evidence:
    """The evidence in the files of the workspace."""
    samples = {
        side: {path.stem: read_results(path) for path in sorted((artifacts.EVALUATION_SAMPLES / side).glob("*.jsonl"))}
        for side in ("candidate", "baseline")
    }
    simulated = [bool(row["simulated"]) for row in read_rows(artifacts.PREFERENCES_TRAIN)]
    return Evidence(
        results=read_json(artifacts.EVALUATION),
        samples=samples,
        alignment=read_json(artifacts.metrics_of(method)),
        labels=read_json(artifacts.metrics_of("prepare_preferences")),
        simulated_preferences=sum(simulated),
        preferences=len(simulated),
        reward_model=read_json(artifacts.metrics_of("reward_model")),
    )


def data_rules(evidence: Evidence, params: Params) -> list[Ruling]:
    """Rules on the labels, which hold for every profile."""
    agreement, floor = evidence.labels.get("pairwise_agreement"), params.prepare_preferences.min_agreement
    if agreement is None:
        verdict: Verdict = "inconclusive"
        says = "no task was ranked by several labelers, so agreement is unknown"
    else:
        verdict = "pass" if agreement >= floor else "refuse"
        says = f"{agreement:.3f}, must be at least {floor:g}"
    rulings = [
        Ruling(
            "label agreement",
            "labels.pairwise_agreement",
            "floor",
            verdict,
            says,
            limit=floor,
            candidate=agreement,
            why="prepare_preferences.min_agreement",
        )
    ]
    share = evidence.simulated_preferences / evidence.preferences if evidence.preferences else 0.0
    allowed = params.gate.allow_simulated_labels
    says = f"{evidence.simulated_preferences} of {evidence.preferences} preferences come from simulated labelers"
    rulings.append(
        Ruling(
            "label origin",
            "labels.simulated_share",
            "ceiling",
            "pass" if allowed or not evidence.simulated_preferences else "refuse",
            says + (", which this profile allows" if allowed else ", none is allowed"),
            limit=1.0 if allowed else 0.0,
            candidate=share,
            why="gate.allow_simulated_labels",
        )
    )
    return rulings


def sandbox_rule(evidence: Evidence, params: Params) -> list[Ruling]:
    """Where a sandbox is required, unscored programs leave the verdict open."""
    found = evidence.results["candidate"].get("humaneval", {}).get("pass_at_1")
    if not params.gate.require_sandbox:
        return []
    if found is not None and found["value"] is not None and not found["unscored"]:
        verdict, says = "pass", f"{found['n']} programs ran isolated"
    else:
        verdict, says = "inconclusive", f"HumanEval is unscored: {(found or {}).get('reason') or 'it was not run'}"
    return [
        Ruling(
            "sandbox",
            "humaneval.pass_at_1",
            "floor",
            verdict,  # type: ignore[arg-type]
            says,
            n=found["n"] if found else 0,
            why="gate.require_sandbox",
        )
    ]


def overall(rulings: Sequence[Ruling]) -> Literal["pass", "refuse", "inconclusive"]:
    """Refuse when any rule refuses, inconclusive when any is open, pass when at least one rule passed."""
    verdicts = {ruling.verdict for ruling in rulings}
    if "refuse" in verdicts:
        return "refuse"
    return "pass" if verdicts <= {"pass", "report"} and "pass" in verdicts else "inconclusive"


def notes(evidence: Evidence, params: Params) -> list[str]:
    """What a reader of the summary must know beyond the verdict."""
    found = []
    programs = evidence.results["candidate"].get("humaneval", {}).get("pass_at_1")
    if programs and programs["unscored"]:
        found.append(f"HumanEval is unscored: {programs['reason']}")
    if evidence.simulated_preferences:
        found.append("the labels are simulated: nobody has looked at these answers")
    if params.evaluate.baseline == "champion" and params.evaluate.champion_version is None:
        found.append("there is no champion yet: the baseline is the model before alignment")
    return found


def judge_evidence(evidence: Evidence, params: Params) -> dict[str, Any]:
    """The verdict with every rule: the whole of verdict.json."""
    rulings = [apply_rule(rule, evidence, params) for rule in params.gate.rules]
    if not params.gate.rules:
        rulings = [Ruling("rules", "-", "floor", "inconclusive", "gate.rules is empty: nothing was asked")]
    rulings += sandbox_rule(evidence, params) + data_rules(evidence, params)
    verdict = overall(rulings)
    return {
        "verdict": verdict,
        "text": f"{verdict} ({params.gate.rules_name})",
        "rules_name": params.gate.rules_name,
        "one_sided_alpha": params.gate.one_sided_alpha,
        "baseline_model": evidence.results["baseline_model"],
        "method": evidence.results["method"],
        "rules": [asdict(ruling) for ruling in rulings],
        "notes": notes(evidence, params),
    }


def verdict_metrics(verdict: Row) -> dict[str, float]:
    """Numbers for the metrics file: how many rules said what."""
    count = {word: sum(rule["verdict"] == word for rule in verdict["rules"]) for word in ("pass", "refuse")}
    open_rules = sum(rule["verdict"] == "inconclusive" for rule in verdict["rules"])
    return {
        "passed": float(verdict["verdict"] == "pass"),
        "rules_passed": float(count["pass"]),
        "rules_refused": float(count["refuse"]),
        "rules_inconclusive": float(open_rules),
    }


def run(stage: Stage) -> None:
    """The stage: verdict and report card, also when the answer is no."""
    evidence = read_evidence(stage.params.align.method)
    verdict = judge_evidence(evidence, stage.params)
    write_json(artifacts.VERDICT, verdict)
    write_report_card(artifacts.REPORT_CARD, verdict, evidence.results, evidence.samples, _card_facts(evidence, stage))
    for path in (artifacts.VERDICT, artifacts.REPORT_CARD):
        stage.tracker.log_artifact(path)
    stage.tracker.set_tags({"verdict": verdict["text"]})
    stage.write_metrics(verdict_metrics(verdict))
    print(f"gate: {verdict['text']}")
    for rule in verdict["rules"]:
        print(f"  {rule['verdict']:12} {rule['name']}: {rule['reason']}")


def _card_facts(evidence: Evidence, stage: Stage) -> dict[str, Any]:
    """What the report card shows beside scores and rules."""
    return {
        "labels": evidence.labels,
        "preferences": evidence.preferences,
        "simulated_preferences": evidence.simulated_preferences,
        "reward_model": evidence.reward_model,
        "alignment": evidence.alignment,
        "judge_rows": list(read_rows(artifacts.EVALUATION_SAMPLES / "judge.jsonl")),
    }


def main() -> None:
    with open_stage("gate") as stage:
        run(stage)


if __name__ == "__main__":
    main()

"""Decides whether the candidate may be released: pass, refuse or inconclusive, each rule with its numbers.

In:  artifacts/evaluate (both models' scores on the same samples), the labels' and the alignment's metrics, the licences
     of what was trained on, and the rules of params.gate. Nothing else: identical inputs give the identical verdict.
Out: artifacts/gate/verdict.json and report_card.html.

Every rule must pass (intersection-union, so alpha needs no correction; claims of superiority are corrected by Holm's
method). The stage succeeds for every verdict; only `pass` lets the DAG release.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

from evals.card_facts import read_facts
from evals.data_rules import data_rules
from evals.report_card import write_report_card
from evals.rules import apply_rules
from evals.rulings import Evidence, Ruling
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
        licenses=read_licenses(),
    )


def read_licenses() -> dict[str, list[str]]:
    """Licence -> the sources of text, demonstrations and prompts under it."""
    found: dict[str, set[str]] = defaultdict(set)
    for source in read_json(artifacts.INGEST_MANIFEST)["sources"]:
        found[source["license"]].add(source["name"])
    for path in (artifacts.SFT_TRAIN, artifacts.PROMPTS_LABELING, artifacts.PROMPTS_ALIGNMENT):
        for row in read_rows(path):
            found[row["license"]].add(row["source"])
    return {name: sorted(sources) for name, sources in sorted(found.items())}


def overall(rulings: Sequence[Ruling]) -> Literal["pass", "refuse", "inconclusive"]:
    """Refuse when any rule refuses, inconclusive when any is open, pass when at least one rule passed."""
    verdicts = {ruling.verdict for ruling in rulings}
    if "refuse" in verdicts:
        return "refuse"
    return "pass" if verdicts <= {"pass", "report"} and "pass" in verdicts else "inconclusive"


def judge_note(judge: Mapping[str, Any]) -> str:
    """How far a judge's wins are to be trusted, by what it showed itself."""
    agreement = judge["agreement_with_labels"]
    said = "its agreement with labels is unknown"
    if agreement["n"]:
        whose = ", all by simulated labelers" if agreement["simulated"] == agreement["n"] else ""
        said = (
            f"it agrees with {agreement['value']:.0%} ({agreement['low']:.0%} to {agreement['high']:.0%}) of "
            f"{agreement['n']} held-out labels{whose}"
        )
    size = "a small local model" if judge.get("local") else "a model behind an endpoint"
    carries = "its wins carry no evidence and decide nothing" if judge.get("local") else "its wins decide nothing"
    pairs = judge["wins"] + judge["ties"] + judge["losses"]
    swayed = f"the order alone decided {judge['inconsistent']} of {pairs} pairs"
    return f"the judge ({judge['judge']}) is {size}: {said}; {swayed}; {carries}"


def notes(evidence: Evidence, params: Params) -> list[str]:
    """What a reader of the summary must know beyond the verdict."""
    found = []
    programs = evidence.results["candidate"].get("humaneval", {}).get("pass_at_1")
    if programs and programs["unscored"]:
        found.append(f"HumanEval is unscored: {programs['reason']}")
    if "judge" in evidence.results:
        found.append(judge_note(evidence.results["judge"]))
    if evidence.simulated_preferences:
        found.append("the labels are simulated: nobody has looked at these answers")
    if evidence.results.get("baseline_missing"):
        found.append(evidence.results["baseline_missing"])
    if params.evaluate.baseline == "champion" and params.evaluate.champion_version is None:
        found.append("there is no champion yet: the baseline is the model before alignment")
    return found


def judge_evidence(evidence: Evidence, params: Params) -> dict[str, Any]:
    """The verdict with every rule: the whole of verdict.json."""
    rulings = apply_rules(evidence, params)
    if not rulings:
        rulings = [Ruling("rules", "-", "floor", "inconclusive", "gate.rules is empty: nothing was asked")]
    rulings += data_rules(evidence, params)
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
    write_report_card(artifacts.REPORT_CARD, verdict, evidence.results, evidence.samples, read_facts(stage.params))
    for path in (artifacts.VERDICT, artifacts.REPORT_CARD):
        stage.tracker.log_artifact(path)
    rules = {f"rule.{rule['name']}": rule["verdict"] for rule in verdict["rules"]}
    stage.tracker.set_tags({"verdict": verdict["text"], "method": verdict["method"]} | rules)
    stage.write_metrics(verdict_metrics(verdict))
    print(f"gate: {verdict['text']}")
    for rule in verdict["rules"]:
        needs = f"; needs n = {rule['planned_n']:,}" if rule["planned_n"] else ""
        print(f"  {rule['verdict']:12} {rule['name']}: {rule['reason']}{needs}")


def main() -> None:
    with open_stage("gate") as stage:
        run(stage)


if __name__ == "__main__":
    main()

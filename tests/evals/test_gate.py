"""The gate on real numbers: a sane candidate passes, a spoiled one is refused, identical inputs agree."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evals import evaluate, gate
from evals.rulings import Evidence
from pipelines.core import artifacts
from pipelines.core.config import Params, load_params, parse, profile_names, resolve
from pipelines.core.jsonl import write_json
from tests.evals.conftest import Workspace
from tests.evals.test_rules import answers, evidence, results

ROOT = Path(__file__).parents[2]


def measured(params: Params) -> Evidence:
    """What evaluate and gate's reading make of the current workspace."""
    write_json(artifacts.EVALUATION, evaluate.evaluate_models(params, artifacts.EVALUATE, evaluate.Stopwatch()))
    return gate.read_evidence("ppo")


def by_name(verdict: dict[str, Any]) -> dict[str, str]:
    return {rule["name"]: rule["verdict"] for rule in verdict["rules"]}


def test_a_sane_candidate_passes_the_demo_rules(workspace: Workspace) -> None:
    workspace(0.002)
    params = load_params(Path("params.yaml"))
    verdict = gate.judge_evidence(measured(params), params)
    assert verdict["text"] == "pass (demo rules)", by_name(verdict)


def test_a_spoiled_candidate_is_refused_by_the_same_rules(workspace: Workspace) -> None:
    workspace(1.5)
    params = load_params(Path("params.yaml"))
    verdict = gate.judge_evidence(measured(params), params)
    assert verdict["text"] == "refuse (demo rules)"
    assert by_name(verdict)["language"] == "refuse"


def params_of(*overrides: str) -> Params:
    return parse(resolve(ROOT, "smol", list(overrides)), "smol")


def full_evidence(**changes: Any) -> Evidence:
    """Evidence for which every rule of smol passes."""
    side = {
        "mmlu": results("accuracy", answers(40, 100)),
        "perplexity": results("perplexity", [3.0, 2.5, 3.5, 2.0] * 4),
        "reward": results("standardized", [0.1, -0.2, 0.4, 0.0] * 10),
        "chat_quality": [
            replace(sample, scores=dict.fromkeys(("not_empty", "clean", "stopped"), sample.scores["x"]))
            for sample in results("x", [1.0] * 40)
        ],
        "safety": [
            replace(sample, scores=dict.fromkeys(("compliance", "over_refusal", "flagged"), sample.scores["x"]))
            for sample in results("x", [0.0] * 40)
        ],
        "humaneval": results("pass_at_1", answers(5, 20)),
    }
    scored = {"humaneval": {"pass_at_1": {"value": 0.25, "n": 20, "unscored": 0, "reason": None}}}
    found = {
        "candidate": scored,
        "baseline": scored,
        "data": {"contaminated_share": 0.0},
        "baseline_model": "sft",
        "method": "ppo",
    }
    return evidence(side, side, **({"results": found} | changes))


def test_all_rules_kept_is_a_pass() -> None:
    verdict = gate.judge_evidence(full_evidence(), params_of())
    assert verdict["verdict"] == "pass", by_name(verdict)


def test_low_agreement_refuses() -> None:
    verdict = gate.judge_evidence(full_evidence(labels={"pairwise_agreement": 0.4}), params_of())
    assert verdict["verdict"] == "refuse"
    assert by_name(verdict)["label agreement"] == "refuse"


def test_unknown_agreement_is_inconclusive() -> None:
    assert gate.judge_evidence(full_evidence(labels={}), params_of())["verdict"] == "inconclusive"


def test_simulated_labels_are_refused_where_they_are_not_allowed() -> None:
    found = full_evidence(simulated_preferences=3)
    assert gate.judge_evidence(found, params_of())["verdict"] == "pass"
    verdict = gate.judge_evidence(found, params_of("gate.allow_simulated_labels=false"))
    assert verdict["verdict"] == "refuse"
    assert by_name(verdict)["label origin"] == "refuse"


def test_contaminated_training_data_refuses() -> None:
    found = full_evidence()
    results_with = found.results | {"data": {"contaminated_share": 0.2}}
    assert gate.judge_evidence(replace(found, results=results_with), params_of())["verdict"] == "refuse"


def test_a_required_sandbox_that_is_missing_is_inconclusive_with_the_reason() -> None:
    found = full_evidence()
    unscored = {"humaneval": {"pass_at_1": {"value": None, "n": 0, "unscored": 20, "reason": "not run: no bwrap"}}}
    found = replace(found, results=found.results | {"candidate": unscored})
    assert gate.judge_evidence(found, params_of())["verdict"] == "pass"
    verdict = gate.judge_evidence(found, params_of("gate.require_sandbox=true"))
    assert verdict["verdict"] == "inconclusive"
    assert any("not run: no bwrap" in rule["reason"] for rule in verdict["rules"])
    assert any("HumanEval is unscored" in note for note in verdict["notes"])


@pytest.mark.parametrize(
    ("profile", "open_rule"), [("tiny", False), ("smol", False), ("h200", True), ("cluster", True)]
)
def test_without_a_sandbox_demos_report_and_release_profiles_stay_open(profile: str, open_rule: bool) -> None:
    unscored = {"humaneval": {"pass_at_1": {"value": None, "n": 0, "unscored": 20, "reason": "not run: no bwrap"}}}
    found = full_evidence()
    side = dict(found.samples["candidate"])
    side["humaneval"] = [replace(sample, scores={}, unscored="not run: no bwrap") for sample in side["humaneval"]]
    found = replace(
        found,
        results=found.results | {"candidate": unscored},
        samples={"candidate": side, "baseline": found.samples["baseline"]},
    )
    verdict = gate.judge_evidence(found, parse(resolve(ROOT, profile, []), profile))
    said = by_name(verdict)
    assert said["programs"] == ("inconclusive" if open_rule else "report")
    assert said.get("sandbox") == ("inconclusive" if open_rule else None)
    assert all("not run: no bwrap" in rule["reason"] for rule in verdict["rules"] if rule["name"] == "programs")


def test_programs_that_ran_without_isolation_are_no_evidence_where_a_sandbox_is_required() -> None:
    unsafe = params_of("gate.require_sandbox=true", "evaluate.allow_unsafe_execution=true")
    verdict = gate.judge_evidence(full_evidence(), unsafe)
    assert by_name(verdict)["sandbox"] == "inconclusive"
    assert by_name(gate.judge_evidence(full_evidence(), params_of("gate.require_sandbox=true")))["sandbox"] == "pass"


def test_a_licence_that_nobody_allowed_refuses_and_names_its_sources() -> None:
    found = full_evidence(licenses={"MIT": ["manual"], "LicenseRef-Unknown": ["forum", "wiki"]})
    verdict = gate.judge_evidence(found, params_of())
    assert by_name(verdict)["licences"] == "refuse"
    assert any("LicenseRef-Unknown (forum, wiki)" in rule["reason"] for rule in verdict["rules"])
    assert gate.judge_evidence(full_evidence(), params_of())["verdict"] == "pass"


@pytest.mark.parametrize("profile", profile_names(ROOT))
def test_a_profile_allows_the_licences_of_its_own_sources(profile: str) -> None:
    params = parse(resolve(ROOT, profile, []), profile)
    assert {source.license for source in params.ingest.sources} <= set(params.gate.allowed_licenses)


def test_identical_evidence_gives_the_identical_verdict_whatever_came_before() -> None:
    first = json.dumps(gate.judge_evidence(full_evidence(), params_of()))
    gate.judge_evidence(full_evidence(labels={}), params_of("seed=9"))
    assert json.dumps(gate.judge_evidence(full_evidence(), params_of())) == first
    rules = params_of().gate.rules
    params = params_of()
    turned = params.model_copy(update={"gate": params.gate.model_copy(update={"rules": rules[::-1]})})
    found = {rule["name"]: rule for rule in gate.judge_evidence(full_evidence(), turned)["rules"]}
    assert found == {rule["name"]: rule for rule in json.loads(first)["rules"]}


def test_the_notes_say_what_a_local_judge_is_worth() -> None:
    found = full_evidence()
    agreement = {"value": 0.6, "low": 0.4, "high": 0.75, "n": 20, "simulated": 20}
    judge = {"judge": "base model", "local": True, "agreement_with_labels": agreement, "inconsistent": 29}
    judge |= {"wins": 0, "ties": 37, "losses": 3}
    notes = gate.judge_evidence(replace(found, results=found.results | {"judge": judge}), params_of())["notes"]
    assert any("60% (40% to 75%) of 20 held-out labels, all by simulated labelers" in note for note in notes)
    assert any("29 of 40 pairs" in note and "carry no evidence" in note for note in notes)


def test_no_rules_is_never_a_pass() -> None:
    assert gate.judge_evidence(full_evidence(), params_of("gate.rules=[]"))["verdict"] == "inconclusive"


def test_the_stage_writes_verdict_and_card_and_succeeds_when_it_refuses(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace(1.5)
    monkeypatch.setattr("pipelines.core.stage._require_own_code", lambda: None)
    measured(load_params(Path("params.yaml")))
    gate.main()
    first = artifacts.VERDICT.read_bytes(), artifacts.REPORT_CARD.read_bytes()
    assert json.loads(first[0])["verdict"] == "refuse"
    printed = capsys.readouterr().out
    assert "refuse (demo rules)" in printed
    assert "needs n = 30" in printed  # 30 points at 30 % discordant pairs
    assert json.loads(artifacts.metrics_of("gate").read_text())["passed"] == 0.0
    gate.main()
    assert (artifacts.VERDICT.read_bytes(), artifacts.REPORT_CARD.read_bytes()) == first


def test_gating_never_waits_for_torch() -> None:
    import subprocess
    import sys

    code = "import evals.gate, sys; print('torch' in sys.modules, 'mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"

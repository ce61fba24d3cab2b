"""The whole evaluation on a tiny model: results complete, the same twice, and bad input said clearly."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from evals import evaluate, gate, models
from pipelines.core import artifacts
from pipelines.core.config import Params, load_params
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_rows, write_json
from tests.evals.conftest import Workspace

ROOT = Path(__file__).parents[2]

# Runs the stage and ends it as SIGKILL does when it comes to a task.
KILLED = """
import os, signal, sys
import pipelines.core.stage
from evals import evaluate
from evals.progress import Progress

pipelines.core.stage._require_own_code = lambda: None
undisturbed = Progress.results

def results(self, side, task, run):
    if [side, task] == sys.argv[1:]:
        os.kill(os.getpid(), signal.SIGKILL)
    return undisturbed(self, side, task, run)

Progress.results = results
evaluate.main()
"""


def test_results_are_complete_and_the_same_twice(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace(0.01)
    monkeypatch.setattr("pipelines.core.stage._require_own_code", lambda: None)
    evaluate.main()
    files = [path for path in artifacts.EVALUATE.rglob("*") if path.is_file()]
    first = {path: path.read_bytes() for path in files}
    results = json.loads(first[artifacts.EVALUATION])
    for side in ("candidate", "baseline", "base"):
        tasks = {task for task in results[side] if not task.startswith("custom_")}
        assert tasks == {
            "perplexity",
            "mmlu",
            "chat_quality",
            "safety",
            "leakage",
            "bias",
            "hatecheck",
            "chat_questions",
            "references",
            "humaneval",
            "reward",
        }
        assert results[side]["custom_hallucination"]["passed"]["n"] == 6
        assert set(results["by_group"][side]["mmlu"]["category"]) == {"stem", "humanities", "social sciences", "other"}
        for metrics in results[side].values():
            for found in metrics.values():
                assert found["unscored"] == 0 or found["reason"]
                if found["value"] is not None:
                    assert found["low"] <= found["value"] <= found["high"]
        assert len(list(read_rows(artifacts.EVALUATION_SAMPLES / side / "mmlu.jsonl"))) == 40
    assert results["judge"]["control"]["judge"] != results["judge"]["judge"]
    assert results["judge"]["agreement_with_labels"]["n"] > 0
    assert results["judge"]["criteria"]["candidate"]["accuracy"]["n"] == 2
    assert (results["baseline_model"], results["baseline_missing"]) == ("sft", None)
    metrics = json.loads(artifacts.metrics_of("evaluate").read_text())
    assert {"perplexity", "mmlu_accuracy", "judge_win_rate", "baseline_perplexity"} <= set(metrics)
    shutil.rmtree(artifacts.EVALUATE)
    evaluate.main()
    assert {path: path.read_bytes() for path in files} == first


def test_a_missing_model_names_the_folder(workspace: Workspace) -> None:
    workspace(0.01)
    shutil.rmtree(artifacts.PPO)
    params = load_params(Path("params.yaml"))
    with pytest.raises(BadInput, match="artifacts/ppo holds no model"):
        evaluate.evaluate_models(params, artifacts.EVALUATE, evaluate.Stopwatch())


def everything() -> dict[Path, bytes]:
    files = [path for path in artifacts.EVALUATE.rglob("*") if path.is_file()]
    return {path: path.read_bytes() for path in [*files, artifacts.metrics_of("evaluate")]}


@pytest.mark.parametrize(("side", "task"), [("baseline", "mmlu"), ("candidate", "safety")])
def test_a_killed_evaluation_goes_on_to_the_result_of_an_undisturbed_one(
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    side: str,
    task: str,
) -> None:
    workspace(0.01)
    monkeypatch.setattr("pipelines.core.stage._require_own_code", lambda: None)
    evaluate.main()
    undisturbed = everything()
    assert not artifacts.EVALUATION_PROGRESS.exists()
    shutil.rmtree(artifacts.EVALUATE)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, side, task], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not artifacts.EVALUATION.exists()
    kept = {f"{path.parent.name}/{path.stem}" for path in artifacts.EVALUATION_PROGRESS.glob("tasks-*/*/*.jsonl")}
    assert kept
    capsys.readouterr()
    evaluate.main()
    assert capsys.readouterr().out.count("from an earlier try") == len(kept)
    assert everything() == undisturbed


def champion_params() -> Params:
    params = load_params(Path("params.yaml"))
    changes = {"baseline": "champion", "champion_version": 3}
    return params.model_copy(update={"evaluate": params.evaluate.model_copy(update=changes)})


def gone(number: int, folder: Path) -> Path:
    raise BadInput(f"the registry has no files of version {number}: deleted")


def broken(number: int, folder: Path) -> Path:
    shutil.copytree(artifacts.PPO, folder / "model")
    (folder / "model" / "model.safetensors").write_bytes(b"torn")
    return folder / "model"


def empty(number: int, folder: Path) -> Path:
    return folder


@pytest.mark.parametrize(
    ("download", "says"), [(gone, "is gone: .*deleted"), (broken, "does not load: "), (empty, "config.json is missing")]
)
def test_a_champion_that_does_not_load_leaves_the_gate_open_with_the_reason(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, download: Callable[[int, Path], Path], says: str
) -> None:
    workspace(0.01)
    monkeypatch.setattr(models.registry, "download", download)
    params = champion_params()
    results = evaluate.evaluate_models(params, artifacts.EVALUATE, evaluate.Stopwatch())
    write_json(artifacts.EVALUATION, results)
    assert re.search(says, results["baseline_missing"])
    assert "/tmp" not in results["baseline_missing"]
    assert results["baseline"] == {}
    assert results["candidate"]["mmlu"]["accuracy"]["n"] == 40
    assert results["judge"]["win_rate"]["n"] == 0
    verdict = gate.judge_evidence(gate.read_evidence("ppo"), params)
    assert verdict["verdict"] == "inconclusive"
    compared = [rule for rule in verdict["rules"] if rule["kind"].startswith("non_inferior")]
    assert len(compared) >= 4
    assert all("champion, version 3" in rule["reason"] for rule in compared)
    assert any("champion, version 3" in note for note in verdict["notes"])


def test_a_registry_that_is_down_is_no_missing_champion(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(number: int, folder: Path) -> Path:
        raise ConnectionError("refused")

    workspace(0.01)
    monkeypatch.setattr(models.registry, "download", down)
    with pytest.raises(ConnectionError):
        evaluate.evaluate_models(champion_params(), artifacts.EVALUATE, evaluate.Stopwatch())

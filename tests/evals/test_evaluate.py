"""The whole evaluation on a tiny model: results complete, the same twice, and bad input said clearly."""

import json
import shutil
from pathlib import Path

import pytest

from evals import evaluate
from pipelines.core import artifacts
from pipelines.core.config import load_params
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_rows
from tests.evals.conftest import Workspace


def test_results_are_complete_and_the_same_twice(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace(0.01)
    monkeypatch.setattr("pipelines.core.stage._require_own_code", lambda: None)
    evaluate.main()
    files = [path for path in artifacts.EVALUATE.rglob("*") if path.is_file()]
    first = {path: path.read_bytes() for path in files}
    results = json.loads(first[artifacts.EVALUATION])
    for side in ("candidate", "baseline"):
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
    assert results["baseline_model"] == "sft"
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


def test_an_endpoint_needs_the_models_name(workspace: Workspace) -> None:
    workspace(0.01)
    params = load_params(Path("params.yaml"))
    params = params.model_copy(
        update={"evaluate": params.evaluate.model_copy(update={"judge_endpoint": "http://127.0.0.1:9/v1"})}
    )
    with pytest.raises(BadInput, match="judge_model"), evaluate.opened_judge(params):
        pass

"""A candidate that the gate did not pass is released by name and reason, or not at all."""

from pathlib import Path
from typing import Any

import pytest

from evals import evaluate, gate, promote
from pipelines.core import artifacts
from pipelines.core.config import load_params
from pipelines.core.digests import file_sha256
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_json, write_json
from pipelines.core.stage import Stage
from pipelines.core.tracking import NoTracker
from tests.evals.conftest import Workspace


def judged(noise: float, workspace: Workspace) -> tuple[Stage, dict[str, Any]]:
    """A workspace with a verdict, as evaluate and gate left it."""
    workspace(noise)
    params = load_params(Path("params.yaml"))
    write_json(artifacts.EVALUATION, evaluate.evaluate_models(params, artifacts.EVALUATE, evaluate.Stopwatch()))
    stage = Stage("gate", params, artifacts.GATE, NoTracker())
    gate.run(stage)
    return stage, read_json(artifacts.VERDICT)


def test_name_and_reason_are_noted_and_stand_on_the_card(workspace: Workspace) -> None:
    stage, verdict = judged(1.5, workspace)
    assert verdict["verdict"] == "refuse"
    before = artifacts.REPORT_CARD.read_bytes()
    for by, reason in (("", "because"), ("Ada", "  ")):
        with pytest.raises(BadInput, match="needs a name and a reason"):
            promote.promote(stage, by, reason)
    assert not artifacts.PROMOTION.exists()
    promote.promote(stage, "Ada <b>Lovelace</b>", "to show it")
    promotion = read_json(artifacts.PROMOTION)
    assert (promotion["by"], promotion["reason"]) == ("Ada <b>Lovelace</b>", "to show it")
    assert promotion["verdict_sha256"] == file_sha256(artifacts.VERDICT)
    card = artifacts.PROMOTED_CARD.read_text()
    assert "Released although the gate says refuse" in card
    assert "Ada &lt;b&gt;Lovelace" in card
    assert "to show it" in card
    assert artifacts.REPORT_CARD.read_bytes() == before
    write_json(artifacts.VERDICT, verdict | {"verdict": "pass", "text": "pass (demo rules)"})
    with pytest.raises(BadInput, match="nothing has to be forced"):
        promote.promote(stage, "Ada", "to show it")

"""DPO learns the preference it is shown, writes a whole model and says how far it went."""

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipelines import dpo
from pipelines.core import artifacts
from pipelines.core.jsonl import read_json, write_rows
from tests.models import make_policy
from tests.pipelines.in_process import enter_workspace, exit_code
from tests.pipelines.test_reward_model import preference


def test_dpo_learns_what_was_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_workspace(tmp_path, monkeypatch, ["dpo.learning_rate=5e-3", "dpo.epochs=3", "dpo.batch_pairs=4"])
    make_policy(artifacts.SFT)
    write_rows(artifacts.PREFERENCES_TRAIN, (preference(n).to_row() for n in range(12)))
    write_rows(artifacts.PREFERENCES_HELD_OUT, (preference(n).to_row() for n in range(50, 54)))
    write_rows(artifacts.PROMPTS_HELD_OUT, (preference(n).prompt.to_row() for n in range(90, 94)))
    assert exit_code(dpo.main) == 0
    metrics = read_json(artifacts.metrics_of("dpo"))
    assert metrics["held_out_accuracy"] == 1.0
    assert metrics["held_out_margin"] > 0
    assert metrics["kl_final"] > 0
    AutoModelForCausalLM.from_pretrained(artifacts.DPO)
    assert AutoTokenizer.from_pretrained(artifacts.DPO).chat_template

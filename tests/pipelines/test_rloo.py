"""RLOO raises a reward that can be raised, and writes a whole model."""

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipelines import rloo
from pipelines.core import artifacts
from pipelines.core.errors import ExitCode
from pipelines.core.jsonl import read_json
from pipelines.model.tokenizer import train_bpe
from tests.pipelines.aligning import make_inputs
from tests.pipelines.in_process import enter_workspace, exit_code

SETTINGS = [
    "rloo.steps=12",
    "rloo.episodes_per_step=32",
    "rloo.responses_per_prompt=4",
    "rloo.max_new_tokens=4",
    "rloo.learning_rate=1e-2",
    "rloo.beta=0.001",
    "rloo.dtype=float32",
]


def test_the_held_out_reward_rises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_workspace(tmp_path, monkeypatch, SETTINGS)
    make_inputs()
    assert exit_code(rloo.main) == 0
    metrics = read_json(artifacts.metrics_of("rloo"))
    assert metrics["reward_gain_low"] > 0
    assert metrics["kl_final"] > 0
    AutoModelForCausalLM.from_pretrained(artifacts.RLOO)
    assert AutoTokenizer.from_pretrained(artifacts.RLOO).chat_template


def test_a_reward_model_with_another_tokenizer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_workspace(tmp_path, monkeypatch, SETTINGS)
    make_inputs()
    train_bpe(["entirely other words than the policy knows"] * 9, 300).save_pretrained(artifacts.REWARD_MODEL)
    assert exit_code(rloo.main) == ExitCode.BAD_INPUT
    assert "share a tokenizer" in read_json(artifacts.FAILURES / "rloo.json")["error"]

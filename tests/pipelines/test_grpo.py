"""GRPO raises a reward that can be raised, and writes a whole model."""

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipelines import grpo
from pipelines.core import artifacts
from pipelines.core.errors import ExitCode
from pipelines.core.jsonl import read_json
from pipelines.model.tokenizer import train_bpe
from tests.pipelines.aligning import make_inputs
from tests.pipelines.in_process import enter_workspace, exit_code

SETTINGS = [
    "grpo.steps=24",
    "grpo.episodes_per_step=32",
    "grpo.responses_per_prompt=4",
    "grpo.max_new_tokens=4",
    "grpo.learning_rate=1e-2",
    "grpo.beta=0.001",
    "grpo.dtype=float32",
]


def test_the_held_out_reward_rises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_workspace(tmp_path, monkeypatch, SETTINGS)
    make_inputs()
    assert exit_code(grpo.main) == 0
    metrics = read_json(artifacts.metrics_of("grpo"))
    assert metrics["reward_gain_low"] > 0
    assert metrics["kl_final"] > 0
    AutoModelForCausalLM.from_pretrained(artifacts.GRPO)
    assert AutoTokenizer.from_pretrained(artifacts.GRPO).chat_template


def test_a_reward_model_with_another_tokenizer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_workspace(tmp_path, monkeypatch, SETTINGS)
    make_inputs()
    train_bpe(["entirely other words than the policy knows"] * 9, 300).save_pretrained(artifacts.REWARD_MODEL)
    assert exit_code(grpo.main) == ExitCode.BAD_INPUT
    assert "share a tokenizer" in read_json(artifacts.FAILURES / "grpo.json")["error"]

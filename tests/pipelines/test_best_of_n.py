"""best_of_n learns from the best answer of each prompt, and from that one only."""

from pathlib import Path

import pytest

from pipelines import best_of_n
from pipelines.best_of_n import best_answers, demonstrations
from pipelines.core import artifacts
from pipelines.core.config import load_params
from pipelines.core.errors import ExitCode
from pipelines.core.jsonl import read_json, read_rows
from pipelines.model.engine import TransformersEngine
from pipelines.model.rewards import RewardScorer
from pipelines.model.tokenizer import train_bpe
from pipelines.rlhf.prompts import read_prompts
from tests.pipelines.aligning import make_inputs
from tests.pipelines.in_process import enter_workspace, exit_code

SETTINGS = [
    "best_of_n.completions=8",
    "best_of_n.max_new_tokens=4",
    "best_of_n.epochs=8",
    "best_of_n.learning_rate=1e-2",
    "best_of_n.dtype=float32",
]


def test_the_held_out_reward_rises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_workspace(tmp_path, monkeypatch, SETTINGS)
    make_inputs(alignment=32)
    assert exit_code(best_of_n.main) == 0
    metrics = read_json(artifacts.metrics_of("best_of_n"))
    assert metrics["reward_gain_low"] > 0
    assert metrics["chosen_margin"] > 0
    samples = list(read_rows(artifacts.BEST_OF_N / "samples.jsonl"))
    assert len(samples) == 32
    assert "one two 7" in samples[7]["prompt"]


def test_the_best_of_more_is_better_and_empty_answers_teach_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter_workspace(tmp_path, monkeypatch, SETTINGS)
    make_inputs(alignment=12)
    params = load_params(Path("params.yaml")).best_of_n
    engine = TransformersEngine.load(artifacts.SFT, "float32", 16)
    scorer = RewardScorer.load(artifacts.REWARD_MODEL, "float32")
    prompts = read_prompts(artifacts.PROMPTS_ALIGNMENT, engine)
    best = best_answers(engine, scorer, prompts, params, seed=3)
    assert best == best_answers(engine, scorer, prompts, params, seed=3)
    assert all(one.margin >= 0 for one in best)
    two = best_answers(engine, scorer, prompts, params.model_copy(update={"completions": 2}), seed=3)
    assert sum(one.reward for one in best) > sum(one.reward for one in two)
    kept = demonstrations([best[0], best[1]._replace(answer=[])], max_tokens=256)
    assert [[token for token, learned in zip(*one, strict=True) if learned] for one in kept] == [best[0].answer]


def test_a_reward_model_with_another_tokenizer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_workspace(tmp_path, monkeypatch, SETTINGS)
    make_inputs()
    train_bpe(["entirely other words than the policy knows"] * 9, 300).save_pretrained(artifacts.REWARD_MODEL)
    assert exit_code(best_of_n.main) == ExitCode.BAD_INPUT
    assert "share a tokenizer" in read_json(artifacts.FAILURES / "best_of_n.json")["error"]

"""PPO as a stage: it raises a reward that can be raised, stops on a runaway KL, and reruns to equal bytes."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipelines import ppo
from pipelines.core import artifacts, tracking
from pipelines.core.errors import ExitCode
from pipelines.core.jsonl import read_json, read_rows, write_rows
from pipelines.model.ngram_moderation import FeatureShape, NGramModerator
from pipelines.model.tokenizer import train_bpe
from pipelines.ppo import minibatches
from pipelines.rlhf.experience import explained_variance
from tests.pipelines.aligning import demonstrations, make_inputs
from tests.pipelines.in_process import enter_workspace, exit_code
from tests.pipelines.test_pretrain import make_inputs as write_shards

SETTINGS = [
    "ppo.steps=12",
    "ppo.episodes_per_step=32",
    "ppo.minibatch_episodes=16",
    "ppo.max_new_tokens=4",
    "ppo.learning_rate=1e-2",
    "ppo.value_learning_rate=1e-2",
    "ppo.kl_coefficient=0.001",
    "ppo.kl_stop=1000",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("ppo")
    with pytest.MonkeyPatch.context() as patch:
        enter_workspace(folder, patch, SETTINGS)
        make_inputs()
        assert exit_code(ppo.main) == 0
        yield folder


def test_the_held_out_reward_rises(finished: Path) -> None:
    metrics = read_json(finished / artifacts.metrics_of("ppo"))
    assert metrics["reward_gain_low"] > 0
    assert metrics["kl_final"] > 0
    assert metrics["stopped_early"] == 0
    assert metrics["steps"] == 12


def test_the_scale_of_the_reward_model_changes_nothing(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter_workspace(tmp_path, monkeypatch, SETTINGS)
    make_inputs()
    weights = load_file(artifacts.REWARD_MODEL / "model.safetensors")
    weights["score.weight"] *= 8  # a power of two rounds nothing
    save_file(weights, artifacts.REWARD_MODEL / "model.safetensors", metadata={"format": "pt"})
    assert exit_code(ppo.main) == 0
    wide, narrow = (read_json(root / artifacts.metrics_of("ppo")) for root in (Path(), finished))
    assert wide["kl_final"] == pytest.approx(narrow["kl_final"], rel=1e-3)
    assert wide["reward_gain"] == pytest.approx(8 * narrow["reward_gain"], rel=1e-3)


def test_some_answers_of_each_step_are_kept(finished: Path) -> None:
    samples = list(read_rows(finished / artifacts.PPO / "samples.jsonl"))
    assert [sample["step"] for sample in samples] == [step for step in range(1, 13) for _ in range(4)]
    assert samples[0]["prompt"].startswith("<|im_start|>user")
    assert not any("<|im_end|>" in sample["response"] for sample in samples)


def test_the_same_inputs_give_the_same_bytes(finished: Path) -> None:
    weights = finished / artifacts.PPO / "model.safetensors"
    before = weights.read_bytes()
    shutil.rmtree(finished / artifacts.PPO)
    assert exit_code(ppo.main) == 0
    assert weights.read_bytes() == before


def test_a_runaway_kl_stops_training_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    enter_workspace(tmp_path, monkeypatch, [*SETTINGS, "ppo.kl_stop=0.001", "ppo.kl_coefficient=0.0"])
    make_inputs()
    assert exit_code(ppo.main) == 0
    assert "ppo.kl_stop 0.001" in capsys.readouterr().out
    metrics = read_json(artifacts.metrics_of("ppo"))
    assert metrics["stopped_early"] == 1
    assert metrics["steps"] < 12


def test_a_reward_model_with_another_tokenizer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_workspace(tmp_path, monkeypatch, SETTINGS)
    make_inputs()
    train_bpe(["entirely other words than the policy knows"] * 9, 300).save_pretrained(artifacts.REWARD_MODEL)
    assert exit_code(ppo.main) == ExitCode.BAD_INPUT
    assert "share a tokenizer" in read_json(artifacts.FAILURES / "ppo.json")["error"]


def test_without_held_out_prompts_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_workspace(tmp_path, monkeypatch, SETTINGS)
    make_inputs()
    write_rows(artifacts.PROMPTS_HELD_OUT, [])
    assert exit_code(ppo.main) == ExitCode.BAD_INPUT
    assert "0 held-out prompts" in read_json(artifacts.FAILURES / "ppo.json")["error"]


def test_explained_variance_worked_by_hand() -> None:
    mask = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    returns = torch.tensor([[1.0, 2.0, 3.0, 99.0]])
    assert explained_variance(returns, returns, mask) == 1
    assert explained_variance(torch.zeros(1, 4), returns, mask) == pytest.approx(0)
    # residuals 1, 0, −1 have the variance of the returns; residuals ½, 0, −½ a quarter of it
    assert explained_variance(torch.tensor([[1.5, 2.0, 2.5, 0.0]]), returns, mask) == pytest.approx(0.75)


def test_minibatches_cover_every_episode_once() -> None:
    groups = list(minibatches(10, 4, random.Random(0)))
    assert [len(group) for group in groups] == [4, 4, 2]
    assert sorted(sum(groups, [])) == list(range(10))


def test_a_policy_trained_as_adapters_is_saved_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_workspace(
        tmp_path, monkeypatch, [*SETTINGS, "ppo.lora={rank: 8, alpha: 16}", "ppo.learning_rate=5e-3", "ppo.steps=40"]
    )
    make_inputs()
    assert exit_code(ppo.main) == 0
    metrics = read_json(artifacts.metrics_of("ppo"))
    assert metrics["reward_gain_low"] > 0
    assert metrics["kl_final"] > 0
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (artifacts.PPO, artifacts.SFT))
    assert ours.keys() == theirs.keys()


@pytest.mark.parametrize("data", ["corpus", "demonstrations"])
def test_the_pretraining_mix_takes_part(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mix = f"{{data: {data}, coefficient: 0.5, sequences: 2, sequence_tokens: 32}}"
    enter_workspace(tmp_path, monkeypatch, [*SETTINGS, "ppo.steps=2", f"ppo.pretraining_mix={mix}"])
    make_inputs()
    write_shards(tmp_path)
    write_rows(artifacts.SFT_TRAIN, demonstrations(4))
    figures: list[dict[str, float]] = []
    monkeypatch.setattr(tracking.NoTracker, "log_metrics", lambda _self, metrics, step=0: figures.append(metrics))
    assert exit_code(ppo.main) == 0
    assert all(0 < found["pretraining_loss"] < 10 for found in figures if "policy_loss" in found)
    assert sum("pretraining_loss" in found for found in figures) == 2


def test_a_bound_on_harm_is_paid_for_in_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = [*SETTINGS, "ppo.steps=3", "ppo.harm_constraint={max_score: 0.1, learning_rate: 2.0}"]
    enter_workspace(tmp_path, monkeypatch, settings)
    make_inputs()
    shape = FeatureShape(hash_bits=10, shortest=3, longest=3, word_ngrams=1, word_weight=1.0)
    always = NGramModerator(["harassment"], shape, np.zeros((1, 1 << 10), np.float32), np.zeros(1, np.float32))
    always.save(artifacts.TRAIN_MODERATION)  # finds 0.5 in everything
    figures: list[dict[str, float]] = []
    monkeypatch.setattr(tracking.NoTracker, "log_metrics", lambda _self, metrics, step=0: figures.append(metrics))
    assert exit_code(ppo.main) == 0
    multipliers = [found["harm_multiplier"] for found in figures if "harm_multiplier" in found]
    assert multipliers == pytest.approx([0.0, 0.8, 1.6])


def test_entropy_that_is_gone_stops_training_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    enter_workspace(tmp_path, monkeypatch, [*SETTINGS, "ppo.entropy_stop=100"])
    make_inputs()
    assert exit_code(ppo.main) == 0
    assert "ppo.entropy_stop 100" in capsys.readouterr().out
    assert read_json(artifacts.metrics_of("ppo"))["steps"] == 0


def test_a_loss_that_is_no_number_names_step_and_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_workspace(tmp_path, monkeypatch, [*SETTINGS, "ppo.learning_rate=1e30", "ppo.kl_stop=1e30"])
    make_inputs()
    assert exit_code(ppo.main) == ExitCode.BAD_INPUT
    said = read_json(artifacts.FAILURES / "ppo.json")["error"]
    assert "at step" in said and "prompts a" in said and "lower ppo.learning_rate" in said

"""PPO as a stage: it raises a reward that can be raised, stops on a runaway KL, and reruns to equal bytes."""

import shutil
from pathlib import Path

import pytest
import torch

from pipelines.core import artifacts
from pipelines.core.jsonl import read_json, write_rows
from pipelines.model.engine import Generation
from pipelines.model.tokenizer import train_bpe
from pipelines.ppo import gain, minibatches
from pipelines.rlhf.episodes import collate, finished_sequences, response_tokens
from tests.models import make_policy, make_reward_model
from tests.workspaces import make_workspace, run_stage

SETTINGS = [
    "ppo.steps=40",
    "ppo.episodes_per_step=32",
    "ppo.minibatch_episodes=16",
    "ppo.epochs=2",
    "ppo.max_new_tokens=2",
    "ppo.learning_rate=1e-2",
    "ppo.value_learning_rate=1e-2",
    "ppo.kl_coefficient=0.001",
    "ppo.gae_lambda=1.0",
    "ppo.kl_stop=1000",
]


def make_inputs(folder: Path, settings: list[str]) -> Path:
    workspace = make_workspace(folder, settings)
    policy = make_policy(workspace / artifacts.SFT)
    make_reward_model(policy, workspace / artifacts.REWARD_MODEL)
    for path, count in ((artifacts.PROMPTS_ALIGNMENT, 8), (artifacts.PROMPTS_HELD_OUT, 48)):
        rows = [
            {
                "id": f"{path.stem}{number}",
                "messages": [{"role": "user", "content": f"one two {number}"}],
                "category": "facts",
                "source": "us",
                "license": "CC-BY-4.0",
            }
            for number in range(count)
        ]
        write_rows(workspace / path, rows)
    return workspace


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = make_inputs(tmp_path_factory.mktemp("ppo"), SETTINGS)
    done = run_stage(workspace, "pipelines.ppo")
    assert done.returncode == 0, done.stderr
    return workspace


def test_the_held_out_reward_rises(finished: Path) -> None:
    metrics = read_json(finished / artifacts.metrics_of("ppo"))
    assert metrics["reward_gain_low"] > 0
    assert metrics["kl_final"] > 0
    assert metrics["stopped_early"] == 0


def test_the_same_inputs_give_the_same_bytes(finished: Path) -> None:
    weights = finished / artifacts.PPO / "model.safetensors"
    before = weights.read_bytes()
    shutil.rmtree(finished / artifacts.PPO)
    assert run_stage(finished, "pipelines.ppo").returncode == 0
    assert weights.read_bytes() == before


def test_a_runaway_kl_stops_training_with_the_reason(tmp_path: Path) -> None:
    workspace = make_inputs(tmp_path, [*SETTINGS, "ppo.kl_stop=0.001", "ppo.kl_coefficient=0.0"])
    done = run_stage(workspace, "pipelines.ppo")
    assert done.returncode == 0, done.stderr
    assert "ppo.kl_stop 0.001" in done.stdout
    assert read_json(workspace / artifacts.metrics_of("ppo"))["stopped_early"] == 1


def test_a_reward_model_with_another_tokenizer_is_refused(tmp_path: Path) -> None:
    workspace = make_inputs(tmp_path, SETTINGS)
    train_bpe(["entirely other words than the policy knows"] * 9, 300).save_pretrained(
        workspace / artifacts.REWARD_MODEL
    )
    done = run_stage(workspace, "pipelines.ppo")
    assert done.returncode == 65, done.stderr
    assert "share a tokenizer" in done.stderr


def test_collated_episodes_mark_the_positions_that_predict_the_response() -> None:
    episodes = collate([[1, 2, 3], [4]], [[5, 6], [7, 8, 9]], [True, False], pad=0)
    assert episodes.ids.tolist() == [[1, 2, 3, 5, 6], [4, 7, 8, 9, 0]]
    assert episodes.response.tolist() == [[0, 0, 1, 1], [1, 1, 1, 0]]
    assert finished_sequences(episodes, end_id=2) == [[1, 2, 3, 5, 6], [4, 7, 8, 9, 2]]
    assert episodes.rows([1]).lengths == [3]


def test_a_stopped_response_ends_in_the_end_token() -> None:
    stopped = Generation("x", (5, 6), (0.0, 0.0), "stop", 3)
    cut = Generation("x", (5, 6), (0.0, 0.0), "length", 3)
    assert response_tokens(stopped, 9) == [5, 6, 9]
    assert response_tokens(cut, 9) == [5, 6]


def test_minibatches_cover_every_episode_once() -> None:
    import random

    groups = list(minibatches(10, 4, random.Random(0)))
    assert [len(group) for group in groups] == [4, 4, 2]
    assert sorted(sum(groups, [])) == list(range(10))


def test_the_gain_is_paired_and_has_a_lower_bound() -> None:
    found = gain([1.0, 2.0, 3.0], [2.0, 3.0, 5.0])
    assert found["reward_gain"] == pytest.approx(4 / 3)
    # differences 1, 1, 2: standard deviation 0.57735, standard error 1/3; Student's t at 95 %, 2 degrees: 2.92
    assert found["reward_gain_low"] == pytest.approx(4 / 3 - 2.92 / 3, abs=1e-3)
    assert torch.isfinite(torch.tensor(list(found.values()))).all()

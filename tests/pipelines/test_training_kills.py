"""A trainer killed at any step and run again ends with the weights of an undisturbed run, to the bit."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from pipelines.core import artifacts
from pipelines.core.jsonl import write_json, write_rows
from tests.models import make_policy
from tests.pipelines.aligning import make_inputs
from tests.pipelines.test_pretrain import SMALL
from tests.pipelines.test_pretrain import make_inputs as pretrain_inputs
from tests.pipelines.test_reward_model import preference
from tests.pipelines.test_sft import demonstration
from tests.workspaces import kill_stage, make_workspace, run_stage

OWN = "step-{:08d}.pt"  # how checkpoints are named: by this project, and by TRL
TRL = "checkpoint-{}/identity.json"


class Trainer(NamedTuple):
    """A stage, its settings, what it reads, how many steps it takes and how its checkpoints are named."""

    stage: str
    settings: Sequence[str]
    make_inputs: Callable[[Path], None]
    steps: int
    checkpoint: str
    kills: int


def sft_inputs(workspace: Path) -> None:
    make_policy(workspace / artifacts.PRETRAIN)
    write_rows(workspace / artifacts.SFT_TRAIN, (demonstration(number) for number in range(20)))
    write_rows(workspace / artifacts.SFT_HELD_OUT, (demonstration(number) for number in range(100, 103)))


def preference_inputs(workspace: Path) -> None:
    make_inputs(workspace)
    write_rows(workspace / artifacts.PREFERENCES_TRAIN, (preference(n).to_row() for n in range(16)))
    write_rows(workspace / artifacts.PREFERENCES_HELD_OUT, (preference(n).to_row() for n in range(50, 58)))
    write_json(workspace / artifacts.AGREEMENT, {"agreement": {"pairwise": {"value": 0.73}}})


GROUPS = ["episodes_per_step=8", "responses_per_prompt=4", "steps=8", "learning_rate=1e-3", "dtype=bfloat16"]
TRAINERS = [
    Trainer("pretrain", [*SMALL, "pretrain.dtype=bfloat16"], pretrain_inputs, 30, OWN, 3),
    Trainer("sft", ["sft.epochs=3", "sft.batch_conversations=4", "sft.dtype=bfloat16"], sft_inputs, 15, TRL, 3),
    Trainer(
        "reward_model",
        ["reward_model.epochs=3", "reward_model.batch_pairs=4", "reward_model.dtype=bfloat16"],
        preference_inputs,
        12,
        TRL,
        3,
    ),
    Trainer(
        "ppo",
        ["ppo.steps=8", "ppo.learning_rate=1e-3", "ppo.kl_target=1.0", "ppo.kl_stop=1000", "ppo.dtype=bfloat16"],
        make_inputs,
        8,
        OWN,
        3,
    ),
    Trainer("dpo", ["dpo.epochs=3", "dpo.batch_pairs=4", "dpo.dtype=bfloat16"], preference_inputs, 12, TRL, 1),
    Trainer("grpo", [f"grpo.{setting}" for setting in GROUPS], make_inputs, 8, TRL, 1),
    Trainer("rloo", [f"rloo.{setting}" for setting in GROUPS], make_inputs, 8, TRL, 1),
    Trainer("best_of_n", ["best_of_n.epochs=4", "best_of_n.batch_conversations=2"], make_inputs, 16, TRL, 1),
]


@pytest.mark.parametrize("trainer", TRAINERS, ids=lambda trainer: trainer.stage)
def test_a_killed_trainer_ends_with_the_same_bits(trainer: Trainer, tmp_path: Path) -> None:
    settings = [*trainer.settings, "resources.checkpoint_interval_s=0"]
    module, weights = f"pipelines.{trainer.stage}", artifacts.ROOT / trainer.stage / "model.safetensors"
    whole, killed = (make_workspace(tmp_path / name, settings) for name in ("whole", "killed"))
    for workspace in (whole, killed):
        trainer.make_inputs(workspace)
    done = run_stage(whole, module)
    assert done.returncode == 0, done.stderr
    folder = killed / artifacts.checkpoints_of(trainer.stage)
    steps = sorted(random.SystemRandom().sample(range(1, trainer.steps - 1), trainer.kills))
    for step in steps:
        kill_stage(killed, module, (folder / trainer.checkpoint.format(step)).exists)
    done = run_stage(killed, module)
    assert done.returncode == 0, done.stderr
    assert "goes on after step" in done.stdout
    assert (killed / weights).read_bytes() == (whole / weights).read_bytes(), f"killed after steps {steps}"
    assert not folder.exists()

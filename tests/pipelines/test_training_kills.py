"""A trainer killed at any step and run again ends with the weights of an undisturbed run, to the bit."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from pipelines.core import artifacts
from pipelines.core.config import load_params
from pipelines.core.jsonl import write_rows
from pipelines.core.records import Conversation, Message
from tests.models import make_policy, make_reward_model
from tests.workspaces import kill_stage, make_workspace, run_stage

KILLS = 3


class Trainer(NamedTuple):
    """A stage, its settings, what it reads, and how its checkpoints are named."""

    stage: str
    settings: Sequence[str]
    make_inputs: Callable[[Path], None]
    steps: int
    checkpoint: str


def prompts(name: str, count: int) -> list[dict[str, object]]:
    return [
        Conversation(f"{name}{n}", (Message("user", f"one two {n}"),), "facts", "us", "CC-BY-4.0").to_row()
        for n in range(count)
    ]


def ppo_inputs(workspace: Path) -> None:
    make_reward_model(make_policy(workspace / artifacts.SFT), workspace / artifacts.REWARD_MODEL)
    write_rows(workspace / artifacts.PROMPTS_ALIGNMENT, prompts("a", 10))
    write_rows(workspace / artifacts.PROMPTS_HELD_OUT, prompts("h", 4))


PPO = Trainer(
    "ppo",
    ["ppo.steps=8", "ppo.learning_rate=1e-3", "ppo.kl_target=1.0", "ppo.kl_stop=1000", "ppo.dtype=bfloat16"],
    ppo_inputs,
    8,
    "step-{:08d}.pt",
)


@pytest.mark.parametrize("trainer", [PPO], ids=lambda trainer: trainer.stage)
def test_a_killed_trainer_ends_with_the_same_bits(trainer: Trainer, tmp_path: Path) -> None:
    settings = [*trainer.settings, "resources.checkpoint_interval_s=0"]
    module, weights = f"pipelines.{trainer.stage}", artifacts.ROOT / trainer.stage / "model.safetensors"
    whole, killed = (make_workspace(tmp_path / name, settings) for name in ("whole", "killed"))
    for workspace in (whole, killed):
        trainer.make_inputs(workspace)
    done = run_stage(whole, module)
    assert done.returncode == 0, done.stderr
    folder = killed / artifacts.checkpoints_of(trainer.stage)
    seed = random.SystemRandom().randrange(2**32)
    steps = sorted(random.Random(seed).sample(range(1, trainer.steps), KILLS))
    for step in steps:
        kill_stage(killed, module, (folder / trainer.checkpoint.format(step)).exists)
    done = run_stage(killed, module)
    assert done.returncode == 0, done.stderr
    assert f"goes on after step {steps[-1]}" in done.stdout or f"goes on after step {steps[-1] + 1}" in done.stdout
    assert (killed / weights).read_bytes() == (whole / weights).read_bytes(), f"killed after {steps}, seed {seed}"
    assert not folder.exists()
    assert load_params(killed / "params.yaml").resources.checkpoint_interval_s == 0

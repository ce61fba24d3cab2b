"""DPO learns the preference it is shown and writes a whole model."""

from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from pipelines.core import artifacts
from pipelines.core.jsonl import read_json, write_rows
from tests.models import make_policy
from tests.pipelines.test_reward_model import preference
from tests.workspaces import make_workspace, run_stage


def test_dpo_learns_what_was_preferred(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, ["dpo.learning_rate=5e-3", "dpo.epochs=3", "dpo.batch_pairs=4"])
    make_policy(workspace / artifacts.SFT)
    write_rows(workspace / artifacts.PREFERENCES_TRAIN, (preference(n).to_row() for n in range(12)))
    write_rows(workspace / artifacts.PREFERENCES_HELD_OUT, (preference(n).to_row() for n in range(50, 54)))
    done = run_stage(workspace, "pipelines.dpo")
    assert done.returncode == 0, done.stderr
    metrics = read_json(workspace / artifacts.metrics_of("dpo"))
    assert metrics["held_out_accuracy"] == 1.0
    assert metrics["held_out_margin"] > 0
    AutoModelForCausalLM.from_pretrained(workspace / artifacts.DPO)
    assert AutoTokenizer.from_pretrained(workspace / artifacts.DPO).chat_template

"""The reward model learns a preference it is shown, weighs prompts alike, and reports its interval."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from pipelines.core import artifacts
from pipelines.core.jsonl import read_json, write_rows
from pipelines.core.records import Conversation, Message, Preference
from pipelines.model.rendering import render_answer
from pipelines.model.rewards import RewardScorer
from pipelines.reward_model import wilson
from tests.models import make_policy, make_reward_model
from tests.workspaces import make_workspace, run_stage

SETTINGS = ["reward_model.learning_rate=5e-3", "reward_model.epochs=6", "reward_model.batch_pairs=4"]


def preference(number: int) -> Preference:
    """Paris wins over six, whatever is asked."""
    prompt = Conversation(str(number), (Message("user", f"question {number}"),), "facts", "us", "CC-BY-4.0")
    return Preference(str(number), prompt, "The capital is Paris.", "one two six", 1.0, False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = make_workspace(tmp_path_factory.mktemp("reward_model"), SETTINGS)
    make_policy(workspace / artifacts.SFT)
    write_rows(workspace / artifacts.PREFERENCES_TRAIN, (preference(n).to_row() for n in range(16)))
    write_rows(workspace / artifacts.PREFERENCES_HELD_OUT, (preference(n).to_row() for n in range(50, 58)))
    done = run_stage(workspace, "pipelines.reward_model")
    assert done.returncode == 0, done.stderr
    return workspace


def test_it_learns_what_was_preferred(finished: Path) -> None:
    metrics = read_json(finished / artifacts.metrics_of("reward_model"))
    assert metrics["held_out_accuracy"] == 1.0
    assert metrics["held_out_accuracy_low"] == pytest.approx(8 / (8 + 1.96**2))
    assert metrics["held_out_pairs"] == 8


def test_the_folder_scores_answers(finished: Path) -> None:
    scorer = RewardScorer.load(finished / artifacts.REWARD_MODEL, "float32")
    chat = [{"role": "user", "content": "question 99"}]
    good, bad = scorer.score(
        [render_answer(scorer.tokenizer, chat, text) for text in ("The capital is Paris.", "one two six")]
    )
    assert good > bad


def test_a_score_does_not_depend_on_the_batch(tmp_path: Path) -> None:
    folder = make_reward_model(make_policy(tmp_path / "policy"), tmp_path / "reward")
    scorer = RewardScorer.load(folder, "float32")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    sequences = [tokenizer(text)["input_ids"] for text in ("Paris", "one two three four five", "Hello! How can I")]
    assert scorer.score(sequences) == pytest.approx([scorer.score([one])[0] for one in sequences], abs=1e-5)


def test_without_pairs_it_says_so(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    make_policy(workspace / artifacts.SFT)
    write_rows(workspace / artifacts.PREFERENCES_TRAIN, [])
    write_rows(workspace / artifacts.PREFERENCES_HELD_OUT, [])
    done = run_stage(workspace, "pipelines.reward_model")
    assert done.returncode == 65
    assert "0 training and 0 held-out pairs" in done.stderr


def test_wilsons_interval_worked_by_hand() -> None:
    low, high = wilson(0.5, 100)
    assert (low, high) == (pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4))

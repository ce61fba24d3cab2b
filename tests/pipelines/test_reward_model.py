"""The reward model learns a preference it is shown, weighs prompts alike, and reports its interval."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipelines import reward_model
from pipelines.core import artifacts
from pipelines.core.errors import ExitCode
from pipelines.core.jsonl import read_json, write_json, write_rows
from pipelines.core.records import Conversation, Message, Preference
from pipelines.model.rendering import render_answer
from pipelines.model.rewards import RewardScorer
from pipelines.reward_model import (
    EachAnswerOnce,
    Pair,
    PromptsTogether,
    balance_lengths,
    calibration_error,
    load_classifier,
    weighted_loss,
    wilson,
)
from tests.models import make_policy, make_reward_model
from tests.pipelines.in_process import enter_workspace, exit_code

SETTINGS = ["reward_model.learning_rate=5e-3", "reward_model.epochs=6", "reward_model.batch_pairs=4"]


def preference(number: int) -> Preference:
    """Paris wins over six, whatever is asked."""
    prompt = Conversation(str(number), (Message("user", f"question {number}"),), "facts", "us", "CC-BY-4.0")
    return Preference(str(number), prompt, "The capital is Paris.", "one two six", 1.0, False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("reward_model")
    with pytest.MonkeyPatch.context() as patch:
        enter_workspace(folder, patch, SETTINGS)
        make_policy(artifacts.SFT)
        write_rows(artifacts.PREFERENCES_TRAIN, (preference(n).to_row() for n in range(16)))
        write_rows(artifacts.PREFERENCES_HELD_OUT, (preference(n).to_row() for n in range(50, 58)))
        write_json(artifacts.AGREEMENT, {"agreement": {"pairwise": {"value": 0.73}}})
        assert exit_code(reward_model.main) == 0
        yield folder


def test_it_learns_what_was_preferred(finished: Path) -> None:
    metrics = read_json(finished / artifacts.metrics_of("reward_model"))
    assert metrics["held_out_accuracy"] == 1.0
    assert metrics["held_out_accuracy_low"] == pytest.approx(8 / (8 + 1.96**2))
    assert metrics["held_out_pairs"] == 8
    assert metrics["human_agreement"] == 0.73


def test_the_folder_scores_answers(finished: Path) -> None:
    scorer = RewardScorer.load(finished / artifacts.REWARD_MODEL, "float32")
    chat = [{"role": "user", "content": "question 99"}]
    good, bad = scorer.score(
        [render_answer(scorer.tokenizer, chat, text) for text in ("The capital is Paris.", "one two six")]
    )
    assert good > bad


def test_the_same_inputs_give_the_same_bytes(finished: Path) -> None:
    weights = finished / artifacts.REWARD_MODEL / "model.safetensors"
    before = weights.read_bytes()
    weights.unlink()
    assert exit_code(reward_model.main) == 0
    assert weights.read_bytes() == before


def test_the_trunk_is_that_of_the_policy(tmp_path: Path) -> None:
    policy = AutoModelForCausalLM.from_pretrained(make_policy(tmp_path))
    classifier = load_classifier(tmp_path, AutoTokenizer.from_pretrained(tmp_path))
    for name, weight in policy.base_model.named_parameters():
        torch.testing.assert_close(weight, classifier.base_model.get_parameter(name))


def test_a_score_does_not_depend_on_the_batch(tmp_path: Path) -> None:
    folder = make_reward_model(make_policy(tmp_path / "policy"), tmp_path / "reward")
    scorer = RewardScorer.load(folder, "float32")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    sequences = [tokenizer(text)["input_ids"] for text in ("Paris", "one two three four five", "Hello! How can I")]
    assert scorer.score(sequences) == pytest.approx([scorer.score([one])[0] for one in sequences], abs=1e-5)


def test_without_pairs_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_workspace(tmp_path, monkeypatch)
    make_policy(artifacts.SFT)
    write_rows(artifacts.PREFERENCES_TRAIN, [])
    write_rows(artifacts.PREFERENCES_HELD_OUT, [])
    assert exit_code(reward_model.main) == ExitCode.BAD_INPUT
    assert "0 training and 0 held-out pairs" in read_json(artifacts.FAILURES / "reward_model.json")["error"]


def test_the_loss_weighs_pairs() -> None:
    # Margins 0 and ln 3: −ln ½ = 0.6931 and −ln ¾ = 0.2877, weighted 1 to 3
    rewards = torch.tensor([0.0, 1.0986123, 0.0, 0.0])
    loss = weighted_loss(rewards, torch.tensor([0.25, 0.75]))
    assert float(loss) == pytest.approx(0.25 * 0.6931472 + 0.75 * 0.2876821, abs=1e-5)


def test_an_answer_of_several_pairs_is_in_the_batch_once() -> None:
    rows = [
        {"chosen_ids": [1, 2, 3], "rejected_ids": [1, 4], "margin": 0.5},
        {"chosen_ids": [1, 4], "rejected_ids": [1, 5], "margin": 0.25},
    ]
    batch = EachAnswerOnce(pad_id=0)(rows)
    assert batch["input_ids"].tolist() == [[1, 4, 0], [1, 5, 0], [1, 2, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 0], [1, 1, 1]]
    assert batch["chosen"].tolist() == [2, 0]
    assert batch["rejected"].tolist() == [0, 1]
    assert batch["margin"].tolist() == [0.5, 0.25]


def test_the_pairs_of_a_prompt_stay_together_in_another_order_each_epoch() -> None:
    prompts = [str(number % 20) for number in range(60)]
    sampler = PromptsTogether(prompts, seed=1)
    first = list(sampler)
    assert sorted(first) == list(range(60))
    assert all(len({prompts[index] for index in first[start : start + 3]}) == 1 for start in range(0, 60, 3))
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first


def test_lengths_are_balanced_by_weight() -> None:
    longer, shorter, even = Pair([1, 2], [1], 1.0, "a"), Pair([1], [1, 2], 1.0, "b"), Pair([1], [2], 1.0, "c")
    pairs = [longer, longer, longer, shorter, even]
    assert balance_lengths(pairs, 0.0) == pairs
    assert [pair.weight for pair in balance_lengths(pairs, 1.0)] == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2.0, 1.0])
    assert [pair.weight for pair in balance_lengths(pairs, 0.5)] == pytest.approx([(2 / 3) ** 0.5] * 3 + [2**0.5, 1.0])


def test_with_one_direction_only_there_is_nothing_to_balance() -> None:
    pairs = [Pair([1, 2], [1], 1.0, "a"), Pair([1], [2], 1.0, "b")]
    assert balance_lengths(pairs, 1.0) == pairs


def test_wilsons_interval_worked_by_hand() -> None:
    low, high = wilson(0.5, 100)
    assert (low, high) == (pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4))


def test_calibration_worked_by_hand() -> None:
    # margins of ln 3 say 75 %: right when three of four pairs go that way, and 25 points off when all do
    log3 = 1.0986123
    assert calibration_error([log3, log3, log3, -log3]) == pytest.approx(0.0, abs=1e-6)
    assert calibration_error([log3] * 4) == pytest.approx(0.25, abs=1e-6)

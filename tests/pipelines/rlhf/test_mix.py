"""The loss beside PPO's: what it draws, what it counts, and clear errors."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipelines.core import artifacts
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import write_rows
from pipelines.core.sections.alignment import PretrainingMix
from pipelines.rlhf.mix import Mix, load_mix
from tests.models import make_policy
from tests.pipelines.aligning import demonstrations


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_policy(artifacts.SFT)
    write_rows(artifacts.SFT_TRAIN, demonstrations(7))


def mix_of(sequences: int, seed: int = 1) -> Mix:
    params = PretrainingMix(data="demonstrations", coefficient=0.5, sequences=sequences, sequence_tokens=64)
    return load_mix(params, AutoTokenizer.from_pretrained(artifacts.SFT), seed)


def texts(mix: Mix, update: int) -> list[str]:
    ids, learned = mix.batch_of(update)
    tokenizer = AutoTokenizer.from_pretrained(artifacts.SFT)
    return [tokenizer.decode(row[1:][kept]) for row, kept in zip(ids, learned, strict=True)]


def test_each_pass_has_every_demonstration_at_most_once_and_learns_its_answer_alone() -> None:
    mix = mix_of(3)
    passes = [[*texts(mix, update), *texts(mix, update + 1)] for update in (0, 2, 4)]
    for seen in passes:
        assert len(set(seen)) == 6
        assert all(text.startswith("three four ") and "one two" not in text for text in seen)
    assert passes[0] != passes[1]


def test_a_batch_is_a_function_of_seed_and_update() -> None:
    assert texts(mix_of(3), 5) == texts(mix_of(3), 5)
    assert [texts(mix_of(3, seed), 0) for seed in (1, 2)].count(texts(mix_of(3), 0)) == 1


def test_the_loss_is_the_mean_over_the_learned_tokens() -> None:
    mix, policy = mix_of(2), AutoModelForCausalLM.from_pretrained(artifacts.SFT)
    ids, learned = mix.batch_of(0)
    logprobs = policy(ids[:, :-1]).logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    assert float(mix.loss(policy, 0)) == pytest.approx(-0.5 * float(logprobs[learned].mean()), rel=1e-5)
    assert torch.equal(ids, mix.batch_of(0).ids)


def test_too_few_demonstrations_are_an_error() -> None:
    with pytest.raises(BadInput, match="there are 7 demonstrations, ppo.pretraining_mix.sequences is 8"):
        mix_of(8)

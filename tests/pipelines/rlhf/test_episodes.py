"""Episodes: which positions predict the response, what a model thinks of them, and what is scored."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from pipelines.model.engine import Generation, Sampling, TransformersEngine
from pipelines.rlhf.episodes import (
    collate,
    divergence,
    logprobs_of,
    response_states,
    response_tokens,
    roll_out,
    sampled_entropy,
    sequences,
)
from tests.models import make_policy


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> TransformersEngine:
    return TransformersEngine.load(make_policy(tmp_path_factory.mktemp("policy")), "float32", batch_size=4)


def test_collated_episodes_mark_the_positions_that_predict_the_response() -> None:
    episodes = collate([[1, 2, 3], [4]], [[5, 6], [7, 8, 9]], [True, False], pad=0)
    assert episodes.ids.tolist() == [[1, 2, 3, 5, 6], [4, 7, 8, 9, 0]]
    assert episodes.response.tolist() == [[0, 0, 1, 1], [1, 1, 1, 0]]


def test_a_part_has_no_columns_that_only_others_need() -> None:
    part = collate([[1, 2, 3], [4]], [[5, 6], [7, 8]], [True, False], pad=0).rows([1])
    assert part.ids.tolist() == [[4, 7, 8]]
    assert part.response.tolist() == [[1, 1]]
    assert (part.lengths, part.ended) == ([2], [False])


def test_what_is_scored_is_what_was_written() -> None:
    episodes = collate([[1, 2, 3], [4]], [[5, 9], [7, 8, 6]], [True, False], pad=0)
    assert sequences(episodes) == [[1, 2, 3, 5, 9], [4, 7, 8, 6]]


def test_a_stopped_response_ends_in_the_end_token() -> None:
    stopped = Generation("x", (5, 6), (0.0, 0.0), "stop", 3)
    cut = Generation("x", (5, 6), (0.0, 0.0), "length", 3)
    assert response_tokens(stopped, 9) == [5, 6, 9]
    assert response_tokens(cut, 9) == [5, 6]


def test_predicted_logprobs_are_those_that_the_engine_drew_by(engine: TransformersEngine) -> None:
    prompts = [engine.render([{"role": "user", "content": text}]) for text in ("Hello!", "one two three four")]
    samplings = [Sampling(6, 1.0, 1.0, seed) for seed in (1, 2)]
    episodes = roll_out(engine, prompts, samplings)
    with torch.no_grad():
        found = logprobs_of(engine.model, episodes, 1.0)
    for row, drawn in enumerate(engine.generate(prompts, samplings)):
        start = len(prompts[row]) - 1
        logprobs = found[row, start : start + len(drawn.logprobs)]
        torch.testing.assert_close(logprobs, torch.tensor(drawn.logprobs), atol=1e-4, rtol=1e-4)
    assert not found[episodes.response == 0].any()


def test_a_temperature_divides_the_logits(engine: TransformersEngine) -> None:
    episodes = collate([[5, 6]], [[7, 8]], [False], pad=0)
    logits = engine.model(torch.tensor([[5, 6, 7]])).logits[0, 1:].detach()
    by_hand = (logits / 0.5).log_softmax(-1)[[0, 1], [7, 8]]
    with torch.no_grad():
        torch.testing.assert_close(logprobs_of(engine.model, episodes, 0.5)[0, 1:], by_hand)


def test_the_entropy_is_that_of_the_distributions(engine: TransformersEngine) -> None:
    episodes = collate([[5, 6]], [[7, 8, 9]], [False], pad=0)
    with torch.no_grad():
        distributions = torch.distributions.Categorical(logits=engine.model(episodes.ids).logits[0, 1:4] / 0.5)
        found = sampled_entropy(response_states(engine.model, episodes), engine.model, 0.5)
    assert found == pytest.approx(float(distributions.entropy().mean()), rel=1e-5)


def test_a_policy_has_no_divergence_from_itself_and_some_from_another(
    engine: TransformersEngine, tmp_path: Path
) -> None:
    prompts = [engine.render([{"role": "user", "content": text}]) for text in ("Hello!", "Paris", "six")]
    episodes = roll_out(engine, prompts, [Sampling(20, 1.0, 1.0, seed) for seed in range(3)])
    other = AutoModelForCausalLM.from_pretrained(make_policy(tmp_path, seed=5)).eval()
    assert divergence(engine.model, engine.model, episodes, 1.0, batch_size=2) == [0.0, 0.0, 0.0]
    found = divergence(engine.model, other, episodes, 1.0, batch_size=2)
    for row, length in enumerate(episodes.lengths):
        end = int(episodes.attention[row].sum())
        with torch.no_grad():
            p, q = (
                model(episodes.ids[row : row + 1, :end]).logits[0, end - length - 1 : end - 1].log_softmax(-1)
                for model in (engine.model, other)
            )
        assert found[row] == pytest.approx(
            float(torch.nn.functional.kl_div(q, p, reduction="sum", log_target=True)), rel=1e-4
        )
        assert found[row] > 0

"""Shared prefixes and strides change the work, never the numbers."""

import os
from math import exp
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from evals.likelihood import (
    common_prefix,
    continuation_likelihoods,
    document_likelihoods,
    next_token_logprobs,
    windows,
)

SHARED = Path(os.environ.get("COLLOQUY_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))


def test_common_prefix() -> None:
    assert common_prefix([[1, 2, 3], [1, 2, 4, 5]]) == 2
    assert common_prefix([[1, 2], [1, 2, 3]]) == 2
    assert common_prefix([[1], [2]]) == 0


def test_sharing_a_prefix_gives_the_logprobs_of_single_prompts(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    prefix = list(range(20, 60))
    prompts = [[*prefix, 5, 6, 7], [*prefix, 9], prefix, [*prefix, 11, 12, 13, 14, 15]]
    found = next_token_logprobs(model, prompts, [300, 301], batch_size=2)
    for prompt, row in zip(prompts, found, strict=True):
        with torch.no_grad():
            alone = torch.log_softmax(model(torch.tensor([prompt])).logits[0, -1], dim=-1)
        np.testing.assert_allclose(row, alone[[300, 301]].numpy(), atol=1e-5)


def test_every_token_but_the_first_is_predicted_once() -> None:
    for length in (2, 7, 8, 9, 30):
        parts = windows(0, length, window=8, stride=4)
        counted = [position for part in parts for position in range(part.scored_from, part.end)]
        assert counted == list(range(1, length))
        assert all(part.end - part.begin <= 8 for part in parts)


def perplexity_by_the_guide(model: torch.nn.Module, ids: list[int], window: int, stride: int) -> float:
    """The method of transformers' guide on perplexity, with its way of counting tokens."""
    total, counted, previous = 0.0, 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + window, len(ids))
        fresh = end - previous
        labels = torch.tensor([ids[begin:end]])
        labels[:, :-fresh] = -100
        with torch.no_grad():
            loss = model(torch.tensor([ids[begin:end]]), labels=labels).loss
        tokens = int((labels != -100).sum()) - 1
        total, counted, previous = total + float(loss) * tokens, counted + tokens, end
        if end == len(ids):
            break
    return exp(total / counted)


def exact_nll(model: torch.nn.Module, ids: list[int], window: int, stride: int) -> float:
    """Every token once, by a window of its own that ends where its strided window ends."""
    total = 0.0
    for part in windows(0, len(ids), window, stride):
        with torch.no_grad():
            logprobs = torch.log_softmax(model(torch.tensor([ids[part.begin : part.end]])).logits[0], dim=-1)
        for place in range(part.scored_from, part.end):
            total -= float(logprobs[place - part.begin - 1, ids[place]])
    return total


@pytest.mark.parametrize(("window", "stride"), [(64, 32), (64, 20), (48, 48), (512, 256)])
def test_strided_perplexity_is_that_of_the_guide(tiny_model: Path, window: int, stride: int) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    ids = tokenizer("The sky is blue because air scatters short wavelengths more than long ones. " * 12)["input_ids"]
    documents = [ids, ids[:50], ids[:33]]
    found = document_likelihoods(model, documents, window, stride, batch_size=3)
    for document, likelihood in zip(documents, found, strict=True):
        expected = perplexity_by_the_guide(model, document, window, stride)
        assert exp(likelihood.guide_nll / likelihood.guide_tokens) == pytest.approx(expected, rel=1e-4)
        assert likelihood.nll == pytest.approx(exact_nll(model, document, window, stride), rel=1e-4)
        if stride < window:
            assert likelihood.tokens == len(document) - 1


def test_strided_perplexity_of_real_text_is_that_of_the_guide(tiny_model: Path) -> None:
    file = SHARED / "wikitext2" / "test.txt"
    if not file.is_file():
        pytest.skip("needs ../shared/data/wikitext2")
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    ids = AutoTokenizer.from_pretrained(tiny_model)(file.read_text()[:12_000])["input_ids"]
    [found] = document_likelihoods(model, [ids], window=256, stride=128, batch_size=4)
    expected = perplexity_by_the_guide(model, ids, 256, 128)
    assert abs(exp(found.guide_nll / found.guide_tokens) - expected) / expected < 1e-4


def test_continuations_have_the_likelihood_of_single_passes(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    context = list(range(20, 60))
    pairs = [(context, [7]), (context, [8]), (context, [7, 9, 11]), (context[:3], [5, 6]), ([4], [300])]
    for (before, rest), found in zip(pairs, continuation_likelihoods(model, pairs, batch_size=2), strict=True):
        with torch.no_grad():
            logprobs = torch.log_softmax(model(torch.tensor([[*before, *rest]])).logits[0], dim=-1)
        places = range(len(before) - 1, len(before) + len(rest) - 1)
        alone = sum(float(logprobs[place, token]) for place, token in zip(places, rest, strict=True))
        assert found.logprob == pytest.approx(alone, abs=1e-4)
        assert found.greedy == ([int(logprobs[place].argmax()) for place in places] == rest)

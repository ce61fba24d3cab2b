"""Shared prefixes and strides change the work, never the numbers."""

from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from evals.likelihood import common_prefix, document_likelihoods, next_token_logprobs, windows


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


def strided_as_in_the_guide(model: torch.nn.Module, ids: list[int], window: int, stride: int) -> tuple[float, int]:
    """The loop of transformers' guide on perplexity, with exact counts of predicted tokens."""
    total, tokens, previous = 0.0, 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + window, len(ids))
        inputs = torch.tensor([ids[begin:end]])
        labels = inputs.clone()
        labels[:, : -(end - previous)] = -100
        predicted = int((labels[:, 1:] != -100).sum())
        with torch.no_grad():
            total += float(model(inputs, labels=labels).loss) * predicted
        tokens, previous = tokens + predicted, end
        if end == len(ids):
            break
    return total, tokens


def test_strided_likelihood_equals_the_guides_loop(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    ids = tokenizer("The sky is blue because air scatters short wavelengths more than long ones. " * 12)["input_ids"]
    documents = [ids, ids[:50], ids[:33]]
    found = document_likelihoods(model, documents, window=64, stride=32, batch_size=3)
    for document, likelihood in zip(documents, found, strict=True):
        total, tokens = strided_as_in_the_guide(model, document, 64, 32)
        assert likelihood.tokens == tokens == len(document) - 1
        assert abs(likelihood.nll - total) / tokens < 1e-4

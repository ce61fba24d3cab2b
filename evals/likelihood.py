"""How likely a causal model finds given texts: choices after a prompt, and whole documents in strides.

Generation goes through the engine; what is here needs the model's logits of many texts at once, and shares one
pass over what all prompts begin with.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache

Ids = Sequence[int]

# Logits of one batch of documents stay under about 200 MB: 4 x 512 tokens x 49,152 words in bfloat16.
LOGITS_AT_ONCE = 100_000_000


class DocumentLikelihood(NamedTuple):
    """Sum of the negative log-likelihoods (nats) of the `tokens` tokens of one document that were predicted."""

    nll: float
    tokens: int


class Window(NamedTuple):
    """Tokens [begin, end) of a document, of which those from `scored_from` on count."""

    document: int
    begin: int
    scored_from: int
    end: int


def common_prefix(texts: Sequence[Ids]) -> int:
    """How many tokens all `texts` begin with alike."""
    shortest, *others = sorted(texts, key=len)
    for position, token in enumerate(shortest):
        if any(other[position] != token for other in others):
            return position
    return len(shortest)


def _batches(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Positions in order of length, `size` at a time, so that padding wastes little."""
    order = sorted(range(len(lengths)), key=lambda position: (-lengths[position], position))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _padded(rows: Sequence[Ids], device: torch.device) -> torch.Tensor:
    """Rows [batch, longest], padded on the right; a causal model never sees padding that comes after."""
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *([0] * (width - len(row)))] for row in rows], device=device)


@torch.inference_mode()
def next_token_logprobs(
    model: Any, prompts: Sequence[Ids], tokens: Sequence[int], batch_size: int
) -> NDArray[np.float64]:
    """Log-probability of each of `tokens` as the next one after each prompt: shape [prompts, tokens].

    What all prompts begin with is run through the model once and its keys and values shared.
    """
    # At least one token of every prompt must be left to predict from.
    shared = min(common_prefix(prompts), min(len(prompt) for prompt in prompts) - 1)
    assert shared >= 0, "a prompt is empty"
    prefix: DynamicCache | None = None
    if shared:
        prefix = DynamicCache(config=model.config)
        model.base_model(torch.tensor([prompts[0][:shared]], device=model.device), past_key_values=prefix)
    rests = [prompt[shared:] for prompt in prompts]
    found = np.zeros((len(prompts), len(tokens)))
    for positions in _batches([len(rest) for rest in rests], batch_size):
        rows = [rests[position] for position in positions]
        cache = copy.deepcopy(prefix)
        if cache is not None:
            cache.batch_repeat_interleave(len(rows))
        hidden = model.base_model(
            _padded(rows, model.device), past_key_values=cache, use_cache=cache is not None
        ).last_hidden_state
        last = hidden[range(len(rows)), [len(row) - 1 for row in rows]]
        logits = model.get_output_embeddings()(last).float()
        found[positions] = torch.log_softmax(logits, dim=-1)[:, list(tokens)].double().cpu().numpy()
    return found


def windows(document: int, length: int, window: int, stride: int) -> list[Window]:
    """Strided windows over one document, as in transformers' guide: every token but the first counts once.

    Each window but the first predicts its last `stride` tokens with what comes before them in it as context.
    """
    found = []
    scored_from = 1
    for begin in range(0, length, stride):
        end = min(begin + window, length)
        if end > scored_from:
            found.append(Window(document, begin, scored_from, end))
        scored_from = max(scored_from, end)
        if end == length:
            break
    return found


@torch.inference_mode()
def document_likelihoods(
    model: Any, documents: Sequence[Ids], window: int, stride: int, batch_size: int
) -> list[DocumentLikelihood]:
    """Likelihood of each document (at least two tokens) by a sliding window of `window` tokens, `stride` at a time."""
    assert 0 < stride <= window, (stride, window)
    todo = [part for number, ids in enumerate(documents) for part in windows(number, len(ids), window, stride)]
    nll, tokens = [0.0] * len(documents), [0] * len(documents)
    limit = max(1, LOGITS_AT_ONCE // (window * model.config.vocab_size))
    for positions in _batches([part.end - part.begin for part in todo], min(batch_size, limit)):
        parts = [todo[position] for position in positions]
        rows = [documents[part.document][part.begin : part.end] for part in parts]
        hidden = model.base_model(_padded(rows, model.device), use_cache=False).last_hidden_state
        for part, row, states in zip(parts, rows, hidden, strict=True):
            first = part.scored_from - part.begin
            logits = model.get_output_embeddings()(states[first - 1 : len(row) - 1]).float()
            targets = torch.tensor(row[first:], device=model.device)
            nll[part.document] += float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
            tokens[part.document] += len(row) - first
    return [DocumentLikelihood(total, count) for total, count in zip(nll, tokens, strict=True)]

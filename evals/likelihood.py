"""How likely a causal model finds given texts: choices after a prompt, and whole documents in strides.

Generation goes through the engine; what is here needs the model's logits of many texts at once, and shares one
pass over what all prompts begin with.
"""

import copy
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache

from pipelines.model.trunk import hidden_states

Ids = Sequence[int]

# Keys and values of one batch of prompts: 750 MB for SmolLM2-135M in float32.
CACHED_TOKENS = 16_384

# Logits of one batch of documents stay under about 200 MB: 4 x 512 tokens x 49,152 words in bfloat16.
LOGITS_AT_ONCE = 100_000_000


class DocumentLikelihood(NamedTuple):
    """Sum of the negative log-likelihoods (nats) of the `tokens` tokens of one document that were predicted.

    `guide_nll` and `guide_tokens` are the same as transformers' guide on perplexity counts them: it takes one token off
    every window, also off those that lose none, so that a window weighs its tokens less one.
    """

    nll: float
    tokens: int
    guide_nll: float
    guide_tokens: int


class ContinuationLikelihood(NamedTuple):
    """Log-probability (nats) of a text after its context, and whether each of its tokens is the likeliest."""

    logprob: float
    greedy: bool


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
    limit = max(1, CACHED_TOKENS // max(len(prompt) for prompt in prompts))
    for positions in _batches([len(rest) for rest in rests], min(batch_size, limit)):
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


@torch.inference_mode()
def continuation_likelihoods(
    model: Any, pairs: Sequence[tuple[Ids, Ids]], batch_size: int
) -> list[ContinuationLikelihood]:
    """Likelihood of the second text of each pair after the first; neither is empty.

    Choices of one token after the same context are one row. Rows that begin alike lie together in a batch, where the
    trunk computes their beginning once.
    """
    rows: dict[tuple[int, ...], list[int]] = defaultdict(list)  # what goes through the model -> pairs it answers
    for number, (context, rest) in enumerate(pairs):
        assert context and rest, "a context or a continuation is empty"
        rows[(*context, *rest[:-1])].append(number)
    found: list[ContinuationLikelihood | None] = [None] * len(pairs)
    ordered = sorted(rows)
    for start in range(0, len(ordered), batch_size):
        batch = ordered[start : start + batch_size]
        attention = torch.tensor([[1] * len(row) + [0] * (max(map(len, batch)) - len(row)) for row in batch])
        hidden = hidden_states(model, _padded(batch, model.device), attention.to(model.device))
        for row, states in zip(batch, hidden, strict=True):
            longest = max(len(pairs[number][1]) for number in rows[row])
            logits = model.get_output_embeddings()(states[len(row) - longest : len(row)]).float()
            logprobs = torch.log_softmax(logits, dim=-1)
            for number in rows[row]:
                tokens = torch.tensor(pairs[number][1], device=model.device)
                own = logprobs[longest - len(tokens) :]
                total = float(own.gather(1, tokens[:, None]).sum())
                found[number] = ContinuationLikelihood(total, bool((own.argmax(dim=-1) == tokens).all()))
    return [one for one in found if one is not None]


def windows(document: int, length: int, window: int, stride: int) -> list[Window]:
    """Strided windows over one document, as in transformers' guide: every token but the first counts once.

    Each window but the first predicts its last `stride` tokens with what comes before them in it as context. Where
    nothing does (`stride` = `window`) the first token of a window is not predicted.
    """
    found = []
    scored_from = 1
    for begin in range(0, length, stride):
        end = min(begin + window, length)
        first = max(scored_from, begin + 1)
        if end > first:
            found.append(Window(document, begin, first, end))
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
    found = [DocumentLikelihood(0.0, 0, 0.0, 0)] * len(documents)
    limit = max(1, LOGITS_AT_ONCE // (window * model.config.vocab_size))
    for positions in _batches([part.end - part.begin for part in todo], min(batch_size, limit)):
        parts = [todo[position] for position in positions]
        rows = [documents[part.document][part.begin : part.end] for part in parts]
        hidden = model.base_model(_padded(rows, model.device), use_cache=False).last_hidden_state
        for part, row, states in zip(parts, rows, hidden, strict=True):
            first = part.scored_from - part.begin
            logits = model.get_output_embeddings()(states[first - 1 : len(row) - 1]).float()
            targets = torch.tensor(row[first:], device=model.device)
            nll = float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
            tokens = len(row) - first
            weight = tokens - 1 if first > 1 else tokens  # of the first window a token is lost, which it doesn't have
            before = found[part.document]
            found[part.document] = DocumentLikelihood(
                before.nll + nll,
                before.tokens + tokens,
                before.guide_nll + nll / tokens * weight,
                before.guide_tokens + weight,
            )
    return found

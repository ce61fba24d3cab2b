"""A causal model's predictions at chosen positions only: its head over the vocabulary is a fifth of a small model."""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pipelines.model.trunk import hidden_states

CHUNK_ELEMENTS = 1 << 22  # of the logits that are float32 at one time: 16 MiB


def hidden_at(model: PreTrainedModel, ids: Tensor, attention: Tensor, where: Tensor) -> Tensor:
    """The last hidden states [N, H] at the positions where `where` is true, row by row.

    Args:
        ids, attention: [B, L], padded on the right.
        where: [B, L], boolean; N of it are true.
    """
    return hidden_states(model, ids, attention)[where]


class _ChosenLogprobs(torch.autograd.Function):
    """log softmax(hidden · weightᵀ / temperature) at `targets`, with the logits kept in the dtype of `hidden`."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> Tensor:
        logits = hidden @ weight.T
        normalizers = torch.empty(len(hidden), device=hidden.device)
        chosen = torch.empty_like(normalizers)
        for rows in _chunks(logits):
            scaled = logits[rows].to(torch.float32, copy=True).div_(temperature)
            normalizers[rows] = scaled.logsumexp(dim=-1)
            chosen[rows] = scaled.gather(1, targets[rows, None]).squeeze(1)
        ctx.save_for_backward(hidden, weight, targets, logits, normalizers)
        ctx.temperature = temperature
        return chosen - normalizers

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, targets, logits, normalizers = ctx.saved_tensors
        scale = grads[0] / ctx.temperature
        by_logit = torch.empty_like(logits)
        for rows in _chunks(logits):
            scaled = logits[rows].to(torch.float32, copy=True).div_(ctx.temperature)
            by_row = scaled.sub_(normalizers[rows, None]).exp_().mul_(-scale[rows, None])
            by_logit[rows] = by_row.scatter_add_(1, targets[rows, None], scale[rows, None])
        return by_logit @ weight, by_logit.T @ hidden if ctx.needs_input_grad[1] else None, None, None


def _chunks(logits: Tensor) -> list[slice]:
    rows = max(1, CHUNK_ELEMENTS // logits.shape[1])
    return [slice(start, start + rows) for start in range(0, len(logits), rows)]


def chosen_logprobs(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probabilities (nats, float32) of `targets` under softmax(hidden · weightᵀ / temperature), [N].

    The same numbers as log_softmax and gather, without float32 logits of the whole batch, forwards or backwards.

    Args:
        hidden: [N, H].
        weight: [V, H], the head over the vocabulary, without a bias.
        targets: [N] token ids.
    """
    found: Tensor = _ChosenLogprobs.apply(hidden, weight, targets, temperature)
    return found


def head_weight(model: PreTrainedModel) -> Tensor:
    """The weight [V, H] of the head over the vocabulary, which must have no bias."""
    head = model.get_output_embeddings()
    assert getattr(head, "bias", None) is None, "heads with a bias are not supported"
    weight: Tensor = head.weight
    return weight

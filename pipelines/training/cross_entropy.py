"""Next-token cross-entropy straight from hidden states: logits exist for one chunk of tokens at a time.

Loss and gradients of a chunk are taken together, so that backward neither keeps the logits nor computes them again.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

LOGITS_BYTES = {
    "cpu": 1 << 26,
    "cuda": 1 << 31,
}  # of one chunk: near the cache of a CPU, a small part of a GPU's memory


def loss_into_gradient(logits: Tensor, targets: Tensor, scale: float) -> Tensor:
    """The summed cross-entropy [] of `logits` [tokens, vocabulary] in nats; `logits` becomes its gradient × `scale`.

    The gradient is softmax(logits) less one at the target.
    """
    wide = logits.float()
    normalizer = wide.logsumexp(-1, keepdim=True)
    loss = (normalizer - wide.gather(1, targets[:, None])).sum()
    hit = torch.arange(logits.shape[1], device=logits.device)[None] == targets[:, None]
    logits.copy_((wide - normalizer).exp() * scale - hit * scale)
    return loss


@cache
def _kernel(compiled: bool) -> Callable[[Tensor, Tensor, float], Tensor]:
    return torch.compile(loss_into_gradient, dynamic=False) if compiled else loss_into_gradient


def chunk_tokens(tokens: int, vocabulary: int, itemsize: int, device: str) -> int:
    """Tokens of one chunk: the largest power of two whose logits keep to LOGITS_BYTES, at most all `tokens`."""
    fitting = max(1, LOGITS_BYTES.get(device, LOGITS_BYTES["cuda"]) // (vocabulary * itemsize))
    return min(tokens, 1 << (fitting.bit_length() - 1))


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, compiled: bool) -> Tensor:
        tokens, vocabulary = len(hidden), len(weight)
        size = chunk_tokens(tokens, vocabulary, hidden.element_size(), hidden.device.type)
        kernel = _kernel(compiled)
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        hidden_grad = torch.empty_like(hidden)
        weight_grad = torch.zeros_like(weight)
        logits = hidden.new_empty(size, vocabulary)
        for start in range(0, tokens, size):
            part = hidden[start : start + size]
            rows = logits[: len(part)]
            torch.mm(part, weight.t(), out=rows)
            loss += kernel(rows, targets[start : start + size], 1.0 / tokens)
            torch.mm(rows, weight, out=hidden_grad[start : start + size])
            weight_grad.addmm_(rows.t(), part)
        ctx.save_for_backward(hidden_grad, weight_grad)
        return loss / tokens

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        hidden_grad, weight_grad = ctx.saved_tensors
        return hidden_grad * grads[0], weight_grad * grads[0], None, None


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, compiled: bool) -> Tensor:
    """The mean cross-entropy [] in nats of the logits `hidden` [tokens, width] × `weight` [vocabulary, width].

    `targets` [tokens]. With `compiled` the softmax of a chunk is one kernel. Without gradients, chunks of logits only.
    """
    if torch.is_grad_enabled() and hidden.requires_grad:
        return _LinearCrossEntropy.apply(hidden, weight, targets, compiled)
    size = chunk_tokens(len(hidden), len(weight), hidden.element_size(), hidden.device.type)
    total = sum(
        functional.cross_entropy((part @ weight.t()).float(), ids, reduction="sum")
        for part, ids in zip(hidden.split(size), targets.split(size), strict=True)
    )
    return total / len(hidden)  # type: ignore[return-value]

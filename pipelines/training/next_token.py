"""One optimizer step of next-token training, and the loss on text that is not trained on."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipelines.data.shards import Tokens, batch_windows, window, window_count
from pipelines.model.attention import use_query_blocks
from pipelines.training.compilation import compiled
from pipelines.training.cross_entropy import linear_cross_entropy

HELD_OUT_TOKENS = 4096  # some ± 4 % of perplexity, and seconds for a model of 135M on two cores; evaluate looks closer


class StepResult(NamedTuple):
    """What one optimizer step measured."""

    loss: float  # nats per token, before the step
    grad_norm: float  # before clipping

    @property
    def finite(self) -> bool:
        """Whether training can go on."""
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


class HeldOut(NamedTuple):
    """Loss on text that was not trained on."""

    loss: float  # nats per token
    bits_per_byte: float
    tokens: int

    @property
    def metrics(self) -> dict[str, float]:
        return {
            "held_out_loss": self.loss,
            "held_out_perplexity": math.exp(min(self.loss, 700.0)),
            "held_out_bits_per_byte": self.bits_per_byte,
        }


class Optimizer(Protocol):
    """What a step needs: `MasterAdamW` on one process, DeepSpeed's engine on several."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of one micro-batch's loss."""

    def update(self, rate: float, max_norm: float, batches: int) -> float:
        """Update the weights from gradients summed over `batches`; returns the norm of their mean."""

    def mean(self, loss: Tensor) -> float:
        """The mean of `loss` [] over all processes."""


class LanguageModelLoss(nn.Module):
    """Next-token cross-entropy of a decoder: its trunk as transformers has it, its head in chunks.

    Compiled, the trunk is one graph for training; without gradients, and for lengths that vary, it runs as it is.
    """

    def __init__(self, model: PreTrainedModel, compile: bool) -> None:
        super().__init__()
        self.model = model
        self.compiled = compile
        if compile and model.device.type == "cpu":
            use_query_blocks(model)
        self._trunk = compiled(model.base_model.forward, model.device.type) if compile else None

    def forward(self, ids: Tensor) -> Tensor:
        """The mean loss [] in nats per token over `ids` [batch, length + 1]."""
        trunk: Any = self._trunk if self._trunk and torch.is_grad_enabled() else self.model.base_model
        hidden = trunk(input_ids=ids[:, :-1].contiguous(), use_cache=False).last_hidden_state
        return linear_cross_entropy(hidden.flatten(0, 1), self.head_weight, ids[:, 1:].flatten(), self.compiled)

    @property
    def head_weight(self) -> nn.Parameter:
        """The output embedding [vocabulary, width]."""
        head = self.model.get_output_embeddings()
        assert isinstance(head, nn.Linear) and head.bias is None
        return head.weight


def train_step(
    loss_of: nn.Module, optimizer: Optimizer, batches: Iterable[Tensor], rate: float, max_norm: float
) -> StepResult:
    """One step at learning rate `rate` on the mean of equal `batches` [sequences, length + 1], and of all processes.

    A loss or gradient that is no number changes no weight of a single process; nothing should be saved after it.
    """
    losses = []
    for ids in batches:
        loss = loss_of(ids)
        optimizer.backward(loss)
        losses.append(loss.detach())
    grad_norm = optimizer.update(rate, max_norm, len(losses))
    return StepResult(optimizer.mean(torch.stack(losses).mean()), grad_norm)


class Batches(NamedTuple):
    """How the windows of a shard are dealt out: to steps, to ranks, to micro-batches."""

    length: int  # tokens
    sequences: int  # of a step, over all ranks
    accumulate: int  # micro-batches of a rank
    seed: int
    rank: int = 0
    ranks: int = 1

    def windows(self, available: int, step: int) -> list[int]:
        """The window numbers of this rank at `step`; a function of its arguments alone."""
        return batch_windows(available, step, self.sequences, self.seed)[self.rank :: self.ranks].tolist()

    def of(self, tokens: Tokens, step: int, device: torch.device) -> list[Tensor]:
        """The micro-batches [sequences, length + 1] of this rank at `step`."""
        numbers = self.windows(window_count(len(tokens), self.length), step)
        ids = torch.from_numpy(np.stack([window(tokens, number, self.length) for number in numbers]))
        if device.type == "cuda":
            ids = ids.pin_memory().to(device, non_blocking=True)
        return list(ids.chunk(self.accumulate))


@torch.no_grad()
def held_out_loss(
    loss_of: nn.Module, tokens: Tokens, length: int, bytes_per_token: float, device: torch.device
) -> HeldOut:
    """The loss over the first windows of `tokens`, up to HELD_OUT_TOKENS."""
    windows = min(window_count(len(tokens), length), max(1, HELD_OUT_TOKENS // length))
    losses = []
    for start in range(0, windows, 8):
        part = [window(tokens, index, length) for index in range(start, min(start + 8, windows))]
        losses += [loss_of(torch.from_numpy(np.stack(part)).to(device)).item()] * len(part)
    loss = sum(losses) / len(losses)
    return HeldOut(loss, loss / math.log(2) / bytes_per_token, windows * length)

"""AdamW with float32 master weights: a model computes in bfloat16 and still learns from small updates."""

import math
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pipelines.model.checkpoints import DTYPES


class MasterAdamW:
    """AdamW on float32 copies of a model's trainable weights, which the model itself holds in the dtype it computes in.

    An update of a fine-tuning learning rate is smaller than half a bfloat16 step of most weights, and would round to
    nothing. Source: Micikevicius et al. 2018, Mixed Precision Training (arXiv 1710.03740), section 3.1.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        dtype: str,
        learning_rate: float,
        max_grad_norm: float,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        """Take the trainable weights of `model`, which come in float32, and leave the model in `dtype`."""
        self._max_grad_norm = max_grad_norm
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        self._masters = [weight.detach().float() for weight in self._weights]
        # As `model.to(dtype)`, but without rounding buffers such as rotary frequencies.
        for weight in model.parameters():
            weight.data = weight.data.to(DTYPES[dtype])
        self._adamw = torch.optim.AdamW(
            self._masters, lr=learning_rate, betas=betas, weight_decay=weight_decay, fused=True
        )

    def collect(self) -> None:
        """Add the model's gradients to those of the masters, and take them from the model."""
        for weight, master in zip(self._weights, self._masters, strict=True):
            if weight.grad is None:
                continue
            if master.grad is None:
                master.grad = weight.grad.float()
            else:
                master.grad += weight.grad
            weight.grad = None

    def step(self) -> float:
        """One update from the gradients that were collected; returns their norm before clipping.

        Raises:
            FloatingPointError: the norm is not finite; the weights are as they were.
        """
        norm = float(torch.nn.utils.clip_grad_norm_(self._masters, self._max_grad_norm))
        if not math.isfinite(norm):
            raise FloatingPointError(f"gradient norm {norm}")
        self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)
        self._hand_over()
        return norm

    @torch.no_grad()
    def _hand_over(self) -> None:
        for weight, master in zip(self._weights, self._masters, strict=True):
            if weight.data_ptr() != master.data_ptr():
                weight.copy_(master)

    def state_dict(self) -> dict[str, Any]:
        """Masters and moments: all that the next step depends on."""
        return {"masters": list[Tensor](self._masters), "adamw": self._adamw.state_dict()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state of an optimizer of the same model, and set the model's weights to it."""
        for master, saved in zip(self._masters, state["masters"], strict=True):
            master.copy_(saved)
        self._adamw.load_state_dict(state["adamw"])
        self._hand_over()

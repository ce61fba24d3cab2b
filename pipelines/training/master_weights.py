"""AdamW with float32 master weights: a model computes in bfloat16 and still learns from small updates."""

import math
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pipelines.model.checkpoints import cast_weights


class MasterAdamW(torch.optim.AdamW):
    """AdamW on float32 copies of a model's trainable weights, which the model itself holds in the dtype it computes in.

    An update of a fine-tuning learning rate is smaller than half a bfloat16 step of most weights, and would round to
    nothing. Source: Micikevicius et al. 2018, Mixed Precision Training (arXiv 1710.03740), section 3.1.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        dtype: str,
        learning_rate: float,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        """Take the trainable weights of `model`, which come in float32, and leave the model in `dtype`.

        Only matrices decay; norms and biases don't.
        """
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        self.masters: list[Tensor] = [weight.detach().float() for weight in self._weights]
        cast_weights(model, dtype)
        groups = [
            {"params": [master for master in self.masters if master.dim() >= 2], "weight_decay": weight_decay},
            {"params": [master for master in self.masters if master.dim() < 2], "weight_decay": 0.0},
        ]
        super().__init__([group for group in groups if group["params"]], lr=learning_rate, betas=betas, fused=True)

    def collect(self) -> None:
        """Add the model's gradients to those of the masters, and take them from the model."""
        for weight, master in zip(self._weights, self.masters, strict=True):
            if weight.grad is None:
                continue
            if master.grad is None:
                master.grad = weight.grad.float()
            else:
                master.grad += weight.grad
            weight.grad = None

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update from all gradients since the last; the model gets the new weights."""
        assert closure is None, "closures are not supported"
        self.collect()
        super().step()
        self.zero_grad(set_to_none=True)
        self._hand_over()

    def clipped_step(self, max_grad_norm: float) -> float:
        """`step` with gradients clipped to a norm of `max_grad_norm`; returns their norm before.

        Raises:
            FloatingPointError: the norm is not finite; the weights are as they were.
        """
        self.collect()
        norm = float(torch.nn.utils.clip_grad_norm_(self.masters, max_grad_norm))
        if not math.isfinite(norm):
            raise FloatingPointError(f"gradient norm {norm}")
        self.step()
        return norm

    @torch.no_grad()
    def _hand_over(self) -> None:
        for weight, master in zip(self._weights, self.masters, strict=True):
            if weight.data_ptr() != master.data_ptr():
                weight.copy_(master)

    def state_dict(self) -> dict[str, Any]:
        """Masters and moments: all that the next step depends on."""
        return {**super().state_dict(), "masters": self.masters}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a state of an optimizer of the same model, and set the model's weights to it."""
        for master, saved in zip(self.masters, state_dict["masters"], strict=True):
            master.copy_(saved)
        super().load_state_dict({name: value for name, value in state_dict.items() if name != "masters"})
        self._hand_over()

"""AdamW with float32 masters: a model computes in bfloat16 and still learns from small updates.

An update of a fine-tuning learning rate is smaller than half a unit in the last place of most bfloat16 weights and
would round to nothing; on a float32 master it adds up (Micikevicius et al. 2018, arXiv 1710.03740, section 3.1).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.model.checkpoints import cast_weights

BETAS = (0.9, 0.95)  # of pretraining; Brown et al. 2020, appendix B
FINE_TUNING_BETAS = (0.9, 0.999)


def decay_groups(weights: Sequence[Tensor], weight_decay: float) -> list[dict[str, Any]]:
    """AdamW's groups: matrices decay, vectors, which are norms and biases, do not."""
    groups = [
        {"params": [weight for weight in weights if weight.dim() >= 2], "weight_decay": weight_decay},
        {"params": [weight for weight in weights if weight.dim() < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


class MasterAdamW(torch.optim.AdamW):
    """AdamW over the trainable weights of a model in one process; its parameters are the masters.

    TRL's trainers call `step`, after clipping by themselves; this project's loops call `backward` and `update`.
    """

    def __init__(
        self,
        model: nn.Module,
        dtype: str,
        learning_rate: float,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = FINE_TUNING_BETAS,
    ) -> None:
        """Take the weights of `model`, which come in float32, as masters, and leave the model in `dtype`.

        With `dtype` float32 weights and masters are the same tensors.
        """
        self._weights: list[Tensor] = [weight for weight in model.parameters() if weight.requires_grad]
        self.masters: list[Tensor] = [weight.detach().float() for weight in self._weights]
        cast_weights(model, dtype)
        self._narrow = [weight for weight in self._weights if weight.dtype != torch.float32]
        self._wide = [
            master for weight, master in zip(self._weights, self.masters, strict=True) if weight.dtype != torch.float32
        ]
        super().__init__(decay_groups(self.masters, weight_decay), lr=learning_rate, betas=betas, fused=True)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss`, in float32."""
        loss.backward()
        self._collect()

    @torch.no_grad()
    def _collect(self) -> None:
        for weight, master in zip(self._weights, self.masters, strict=True):
            if weight.grad is None:
                continue
            if master.grad is None:
                master.grad = weight.grad.float()
            else:
                master.grad.add_(weight.grad)
            weight.grad = None

    @torch.no_grad()
    def _hand_over(self) -> None:
        if self._narrow:
            torch._foreach_copy_(self._narrow, self._wide)

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update from all gradients since the last; the model gets the new weights."""
        assert closure is None, "closures are not supported"
        self._collect()
        super().step()
        self.zero_grad(set_to_none=True)
        self._hand_over()

    @torch.no_grad()
    def update(self, rate: float, max_norm: float, batches: int = 1) -> float:
        """One update at learning rate `rate` from gradients summed over `batches`; returns the norm of their mean.

        Gradients are scaled down to `max_norm` where they pass it. A norm that is no number changes nothing.
        """
        self._collect()
        grads = [master.grad for master in self.masters if master.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(grads, foreach=True)) / batches
        if not math.isfinite(norm):
            self.zero_grad(set_to_none=True)
            return norm
        factor = min(1.0, max_norm / (norm + 1e-6)) / batches
        if factor != 1.0:
            torch._foreach_mul_(grads, factor)
        for group in self.param_groups:
            group["lr"] = rate
        self.step()
        return norm

    def mean(self, loss: Tensor) -> float:
        """The mean of `loss` [] over all processes, of which there is one."""
        return float(loss)

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

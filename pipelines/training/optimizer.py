"""AdamW in full precision for weights of any precision: narrow weights train on full-precision masters.

An update smaller than half a unit in the last place of a bfloat16 weight would vanish; on its master it adds up
(Micikevicius et al. 2018, section 3.1).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

BETAS = (0.9, 0.95)  # Brown et al. 2020, appendix B


def decay_groups(weights: Sequence[Tensor], weight_decay: float) -> list[dict[str, Any]]:
    """AdamW's groups: matrices decay, vectors, which are norms and biases, do not."""
    return [
        {"params": [weight for weight in weights if weight.dim() >= 2], "weight_decay": weight_decay},
        {"params": [weight for weight in weights if weight.dim() < 2], "weight_decay": 0.0},
    ]


class MasterAdamW:
    """AdamW over the weights of `model`, in one process.

    A float32 weight is its own master. Others are copied to float32 here, so cast a model to its training precision
    with `narrow`, which keeps what the cast rounds away.
    """

    def __init__(self, model: nn.Module, weight_decay: float, masters: dict[str, Tensor] | None = None) -> None:
        named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
        self.weights: list[Tensor] = [weight for _, weight in named]
        kept = masters or {}
        self.masters: list[Tensor] = [
            weight if weight.dtype == torch.float32 else kept[name] if name in kept else weight.detach().float()
            for name, weight in named
        ]
        self.adamw = torch.optim.AdamW(decay_groups(self.masters, weight_decay), lr=0.0, betas=BETAS, fused=True)
        self._narrow = [
            (weight, master) for weight, master in zip(self.weights, self.masters, strict=True) if weight is not master
        ]

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss`; those of narrow weights move to their masters, in float32."""
        loss.backward()
        self._take_gradients()

    @torch.no_grad()
    def _take_gradients(self) -> None:
        for weight, master in self._narrow:
            if weight.grad is None:
                continue
            if master.grad is None:
                master.grad = weight.grad.float()
            else:
                master.grad.add_(weight.grad)
            weight.grad = None

    @torch.no_grad()
    def step(self, rate: float, max_norm: float, batches: int) -> float:
        """One update from gradients summed over `batches`; returns the norm of their mean.

        Gradients are scaled down to `max_norm` where they pass it. A norm that is no number changes nothing.
        """
        grads = [master.grad for master in self.masters if master.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(grads, foreach=True)) / batches
        if norm < float("inf"):
            factor = min(1.0, max_norm / (norm + 1e-6)) / batches
            if factor != 1.0:
                torch._foreach_mul_(grads, factor)
            for group in self.adamw.param_groups:
                group["lr"] = rate
            self.adamw.step()
            if self._narrow:
                torch._foreach_copy_([weight for weight, _ in self._narrow], [master for _, master in self._narrow])
        self.adamw.zero_grad(set_to_none=True)
        return norm

    def mean(self, loss: Tensor) -> float:
        """The mean of `loss` [] over all processes, of which there is one."""
        return float(loss)

    def state_dict(self) -> dict[str, Any]:
        """Moments, step counts and masters: all that the next step depends on beside the weights."""
        return {"adamw": self.adamw.state_dict(), "masters": [master.detach() for _, master in self._narrow]}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()` of an optimizer over the same model; sets the narrow weights too."""
        self.adamw.load_state_dict(state["adamw"])
        for (weight, master), saved in zip(self._narrow, state["masters"], strict=True):
            master.copy_(saved)
            weight.copy_(saved)


@torch.no_grad()
def narrow(model: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """Round the weights of `model` to `dtype` in place; returns the float32 weights by name. Buffers stay as they are.

    The rotary frequencies are buffers; rounded, they would turn late positions by wrong angles.
    """
    masters = {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.dtype != dtype}
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)
    return masters

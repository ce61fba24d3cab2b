"""KL between policy and reference: the per-token estimate and the controller of its coefficient."""

from dataclasses import dataclass

from torch import Tensor


def kl_per_token(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor) -> Tensor:
    """log π(a|s) − log π_ref(a|s) of the sampled tokens, [B, T] nats, zero off the mask.

    Unbiased under the policy's own samples; a single token's value can be negative.
    Source: Ziegler et al. 2019 (arXiv 1909.08593), section 2.2.
    """
    return (logprobs - ref_logprobs) * mask


@dataclass(frozen=True, slots=True)
class KlController:
    """β of the KL penalty. With `target` (nats a response) it moves towards it, without it stays."""

    coefficient: float
    target: float | None
    horizon: float = 10_000.0  # episodes; Ziegler et al. 2019 use K_β = 0.1 with their batch of 1,024

    def updated(self, kl: float, episodes: int) -> "KlController":
        """The controller after `episodes` episodes whose mean KL was `kl` nats a response.

        β ← β·(1 + e·n/horizon), e = clip(kl/target − 1, −0.2, 0.2). Source: Ziegler et al. 2019, equation 7.
        """
        if self.target is None:
            return self
        error = min(max(kl / self.target - 1, -0.2), 0.2)
        return KlController(self.coefficient * (1 + error * episodes / self.horizon), self.target, self.horizon)

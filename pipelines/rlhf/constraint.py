"""A bound on a second score, such as harm, kept by a Lagrange multiplier."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class LagrangeMultiplier:
    """λ of the reward r − λ·score: it grows while the mean score is over `bound`, and falls to 0 while it is under.

    Source: Dai et al. 2023, Safe RLHF (arXiv 2310.12773), section 3.3; plain ascent in place of that of log λ, so that
    0 is reached.
    """

    bound: float
    learning_rate: float
    value: float = 0.0

    def updated(self, score: float) -> "LagrangeMultiplier":
        """The multiplier after a batch of mean `score`: λ ← max(0, λ + η·(score − bound))."""
        return replace(self, value=max(0.0, self.value + self.learning_rate * (score - self.bound)))

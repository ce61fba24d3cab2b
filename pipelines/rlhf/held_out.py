"""What alignment did to a policy on prompts that it was not aligned on: its reward before and after, and its KL."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from scipy.stats import t as student_t
from transformers import PreTrainedModel

from pipelines.core.errors import BadInput
from pipelines.model.engine import TransformersEngine
from pipelines.rlhf.episodes import Episodes, divergence, roll_out, sequences
from pipelines.rlhf.prompts import Prompt, samplings_of


class Scorer(Protocol):
    """What rewards responses: a reward model, or a rule."""

    def score(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """One number for each sequence of token ids (prompt and response as it was written); higher is better."""
        ...


class Scaled(NamedTuple):
    """`scorer` with rewards in units of `unit`."""

    scorer: Scorer
    unit: float

    def score(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """One number for each sequence of token ids; higher is better."""
        return [reward / self.unit for reward in self.scorer.score(sequences)]


def gain(before: Sequence[float], after: Sequence[float]) -> dict[str, float]:
    """The paired difference of at least two rewards with its one-sided 95 % lower bound by Student's t."""
    differences = [late - early for early, late in zip(before, after, strict=True)]
    mean, n = statistics.mean(differences), len(differences)
    error = statistics.stdev(differences) / math.sqrt(n)
    return {
        "reward_sft": statistics.mean(before),
        "reward_aligned": statistics.mean(after),
        "reward_sft_sd": statistics.stdev(before),
        "reward_gain": mean,
        "reward_gain_low": mean - float(student_t.ppf(0.95, n - 1)) * error,
        "reward_n": float(n),
    }


class HeldOutReward:
    """The reward of a policy's answers to held-out prompts, before training and after it by the same seeds."""

    def __init__(
        self,
        engine: TransformersEngine,
        scorer: Scorer,
        prompts: Sequence[Prompt],
        max_new_tokens: int,
        temperature: float,
        seed: int,
    ) -> None:
        """Answer the prompts with the policy as it is now.

        Raises:
            BadInput: fewer than two prompts.
        """
        if len(prompts) < 2:
            raise BadInput(f"{len(prompts)} held-out prompts; at least 2 are needed, see prepare_sft.held_out_prompts")
        self._engine, self._scorer = engine, scorer
        self._temperature = temperature
        self._prompts = [prompt.ids for prompt in prompts]
        self._samplings = samplings_of(prompts, max_new_tokens, temperature, seed, step=0)
        self.before = self._rewards(self._answers())

    def _answers(self) -> Episodes:
        return roll_out(self._engine, self._prompts, self._samplings)

    def _rewards(self, answers: Episodes) -> list[float]:
        return self._scorer.score(sequences(answers))

    def after(self, ref_policy: PreTrainedModel, batch_size: int) -> dict[str, float]:
        """`gain` of the policy as it is now, and its mean KL from `ref_policy` (nats per response) as `kl_final`."""
        answers = self._answers()
        kl = divergence(self._engine.model, ref_policy, answers, self._temperature, batch_size)
        return gain(self.before, self._rewards(answers)) | {"kl_final": statistics.mean(kl)}

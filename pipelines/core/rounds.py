"""What an earlier round left: `pipelines/previous_round.py` writes it, sampling and preferences read it."""

from dataclasses import dataclass
from typing import Any, Self

from pipelines.core import artifacts
from pipelines.core.jsonl import read_json


@dataclass(frozen=True, slots=True)
class EarlierRound:
    """The round before this one; `number` counts this one, from 1."""

    number: int
    run: str | None  # None: this is the first round
    simulated: bool  # whether its reward model learned from simulated labelers
    reward_model: dict[str, float]  # metrics of its stage reward_model
    preferences: dict[str, float]  # metrics of its stage prepare_preferences

    @classmethod
    def read(cls) -> Self:
        """The manifest of the stage previous_round."""
        row: dict[str, Any] = read_json(artifacts.PREVIOUS_ROUND_MANIFEST)
        return cls(**row)

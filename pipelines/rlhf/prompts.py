"""The prompts that policies answer while they are aligned: which ones a step asks, and how its answers are drawn."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pipelines.core.jsonl import read_rows
from pipelines.core.records import Conversation
from pipelines.data.shards import batch_windows
from pipelines.model.engine import Engine, Sampling


class Prompt(NamedTuple):
    """A prompt as token ids."""

    id: str
    ids: list[int]


def read_prompts(path: Path, engine: Engine) -> list[Prompt]:
    """The prompts of `path`, rendered up to where the assistant answers."""
    conversations = map(Conversation.from_row, read_rows(path))
    return [Prompt(conversation.id, engine.render(conversation.chat)) for conversation in conversations]


def prompts_of_step(prompts: Sequence[Prompt], seed: int, step: int, count: int) -> list[Prompt]:
    """The prompts of step 1, 2, …: each comes once before one comes again, in an order of its own each time."""
    return [prompts[number] for number in batch_windows(len(prompts), step - 1, count, seed)]


def samplings_of(
    prompts: Sequence[Prompt], max_new_tokens: int, temperature: float, seed: int, step: int
) -> list[Sampling]:
    """How the answers of one step are drawn: from the whole distribution, each by a seed of its own."""
    seeds = [random.Random(f"{seed} {step} {place} {prompt.id}") for place, prompt in enumerate(prompts)]
    return [Sampling(max_new_tokens, temperature, 1.0, one.getrandbits(48)) for one in seeds]

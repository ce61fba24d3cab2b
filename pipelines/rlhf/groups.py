"""Rollouts and rewards of TRL's group methods (GRPO, RLOO) by this project's engine and reward model."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch.utils.data import Sampler

from pipelines.core.jsonl import read_rows
from pipelines.core.records import Conversation
from pipelines.data.shards import batch_windows
from pipelines.model.engine import TransformersEngine
from pipelines.model.rendering import render_prompt_text
from pipelines.rlhf.episodes import response_tokens
from pipelines.rlhf.held_out import Scorer
from pipelines.rlhf.prompts import Prompt, samplings_of

Rewards = Callable[..., list[float]]


class StepPrompts(Sampler[int]):
    """The prompt of every episode of every step: those of `batch_windows`, each `responses` times in a row."""

    def __init__(self, prompts: int, steps: int, episodes: int, responses: int, seed: int) -> None:
        self._prompts, self._steps, self._episodes, self._responses = prompts, steps, episodes, responses
        self._seed = seed

    def __len__(self) -> int:
        return self._steps * self._episodes

    def __iter__(self) -> Iterator[int]:
        for step in range(self._steps):
            for prompt in batch_windows(self._prompts, step, self._episodes // self._responses, self._seed).tolist():
                yield from [prompt] * self._responses


class EngineRollouts:
    """What a trainer of TRL draws by: prompts and answers are functions of run seed, step and prompt.

    TRL's own come from generators whose state no checkpoint has. `engine` is one on the trainer's own model.
    """

    engine: TransformersEngine
    args: Any
    state: Any
    train_dataset: Any

    def _get_train_sampler(self, dataset: Any = None) -> "StepPrompts":
        return StepPrompts(
            len(self.train_dataset),
            self.args.max_steps,
            self.args.per_device_train_batch_size,
            self.args.num_generations,
            self.args.seed,
        )

    def _track_num_input_tokens(self, inputs: Any) -> None:
        """TRL counts the tokens as they are drawn; what it gives to its base class are prompts as text."""

    def draw(self, prompt_ids: list[list[int]]) -> list[list[int]]:
        """One answer for each prompt, with its end token if it ended by itself."""
        prompts = [Prompt(" ".join(map(str, ids)), ids) for ids in prompt_ids]
        samplings = samplings_of(
            prompts, self.args.max_completion_length, self.args.temperature, self.args.seed, self.state.global_step + 1
        )
        drawn = self.engine.generate(prompt_ids, samplings)
        return [response_tokens(generation, self.engine.tokenizer.eos_token_id) for generation in drawn]


def prompt_rows(path: Path, engine: TransformersEngine) -> Dataset:
    """The prompts of `path` as TRL takes them: text, already rendered."""
    conversations = map(Conversation.from_row, read_rows(path))
    return Dataset.from_list([{"prompt": render_prompt_text(engine.tokenizer, one.chat)} for one in conversations])


def rewards_by(scorer: Scorer, engine: TransformersEngine) -> Rewards:
    """`scorer` as a reward function of TRL."""

    def reward_model(prompts: Sequence[str], completion_ids: Sequence[list[int]], **_: Any) -> list[float]:
        encoded = engine.tokenizer(list(prompts), add_special_tokens=False)["input_ids"]
        return scorer.score([[*prompt, *response] for prompt, response in zip(encoded, completion_ids, strict=True)])

    return reward_model

"""Chat quality: answers to held-out prompts, in the form the assistant is served in.

Here the form is checked: an answer must stop by itself, say something, and leak no control token. What the answers
are worth is for the judge and the held-out reward to say; both read the results of this task.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from evals.metrics import Score
from evals.task import SampleResult, evenly
from pipelines.core.errors import BadInput
from pipelines.core.jsonl import read_rows
from pipelines.core.records import Conversation
from pipelines.model.engine import Generation, Sampling


class Voice(NamedTuple):
    """How the assistant answers when it is served."""

    system_prompt: str
    temperature: float
    top_p: float
    seed: int


def with_system(chat: list[dict[str, str]], system_prompt: str) -> list[dict[str, str]]:
    """`chat` headed by the assistant's system prompt, unless it brings its own."""
    if not system_prompt or chat[0]["role"] == "system":
        return chat
    return [{"role": "system", "content": system_prompt}, *chat]


def answer(engine: Any, chats: Sequence[list[dict[str, str]]], max_new_tokens: int, voice: Voice) -> list[Generation]:
    """Answers to `chats`. Each has a seed of its own, the same for both models: equal models give equal answers."""
    prompts = [engine.render(with_system(chat, voice.system_prompt)) for chat in chats]
    samplings = [
        Sampling(max_new_tokens, voice.temperature, voice.top_p, voice.seed + number) for number in range(len(chats))
    ]
    return list(engine.generate(prompts, samplings))


def form_scores(generation: Generation, special_ids: frozenset[int]) -> dict[str, Score]:
    """1 for each way in which the answer is well formed. `token_ids` come without the end token."""
    return {
        "stopped": Score(float(generation.finish_reason == "stop")),
        "not_empty": Score(float(bool(generation.text.strip()))),
        "clean": Score(float(not special_ids.intersection(generation.token_ids) and "<|" not in generation.text)),
        "tokens": Score(float(len(generation.token_ids))),
    }


@dataclass(frozen=True, slots=True)
class ChatQuality:
    """Up to `prompts` prompts of `data` (Conversation rows that end with a user turn)."""

    data: Path
    prompts: int
    max_new_tokens: int
    voice: Voice
    name: str = "chat_quality"
    metrics: tuple[str, ...] = ("stopped", "not_empty", "clean", "tokens")
    groups: tuple[str, ...] = ("category",)

    def samples(self) -> list[Conversation]:
        """The prompts, spread over the whole file."""
        rows = list(read_rows(self.data))
        if not rows:
            raise BadInput(f"{self.data} has no prompts; raise prepare_sft.held_out_prompts")
        return [Conversation.from_row(row) for row in evenly(rows, self.prompts)]

    def run(self, engine: Any) -> list[SampleResult]:
        samples = self.samples()
        special_ids = frozenset(engine.tokenizer.all_special_ids)
        generations = answer(engine, [sample.chat for sample in samples], self.max_new_tokens, self.voice)
        return [
            SampleResult(
                sample.id,
                sample.messages[-1].content,
                generation.text,
                form_scores(generation, special_ids),
                detail={"category": sample.category, "finish_reason": generation.finish_reason},
            )
            for sample, generation in zip(samples, generations, strict=True)
        ]

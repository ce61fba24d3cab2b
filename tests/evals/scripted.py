"""An engine that answers what a test says."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from pipelines.model.engine import Generation, Sampling


class ScriptedEngine:
    """Gives the answers it was made with, in order."""

    def __init__(self, folder: Path, answers: list[str], finish_reason: str = "stop") -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.rendered: list[list[dict[str, str]]] = []
        self._answers = answers
        self._finish: Any = finish_reason

    def render(self, chat: list[dict[str, str]]) -> list[int]:
        self.rendered.append(chat)
        return [1]

    def generate(self, prompts: list[list[int]], samplings: list[Sampling]) -> list[Generation]:
        return [
            Generation(text, tuple(self.tokenizer(text)["input_ids"]), (), self._finish, len(prompt))
            for text, prompt in zip(self._answers, prompts, strict=True)
        ]

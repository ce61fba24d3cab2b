"""What the tests of alignment stages share: a small policy, a reward model on it, and prompts."""

from pathlib import Path

from pipelines.core import artifacts
from pipelines.core.jsonl import Row, write_rows
from pipelines.core.records import Conversation, Message
from tests.models import make_policy, make_reward_model


def prompts(name: str, count: int) -> list[Row]:
    """Prompts that differ in a number."""
    return [
        Conversation(f"{name}{n}", (Message("user", f"one two {n}"),), "facts", "us", "CC-BY-4.0").to_row()
        for n in range(count)
    ]


def make_inputs(workspace: Path = Path(), alignment: int = 8, held_out: int = 128) -> None:
    """What an alignment stage reads, in `workspace`."""
    make_reward_model(make_policy(workspace / artifacts.SFT), workspace / artifacts.REWARD_MODEL)
    write_rows(workspace / artifacts.PROMPTS_ALIGNMENT, prompts("a", alignment))
    write_rows(workspace / artifacts.PROMPTS_HELD_OUT, prompts("h", held_out))


def demonstrations(count: int) -> list[Row]:
    """Conversations that differ in a number."""
    turns = [(Message("user", f"one two {n}"), Message("assistant", f"three four {n}")) for n in range(count)]
    return [Conversation(f"d{n}", chat, "facts", "us", "CC-BY-4.0").to_row() for n, chat in enumerate(turns)]

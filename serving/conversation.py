"""From a conversation to a prompt: as many turns as the context holds, the newest and the system message always."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pipelines.core.records import Message
from serving.errors import ApiError

Render = Callable[[list[dict[str, str]]], list[int]]


class Fitted(NamedTuple):
    """A prompt that fits: its token ids, the room left for the answer, and how many messages were left out."""

    prompt: list[int]
    room: int  # tokens
    dropped: int


def require_question(messages: Sequence[Message]) -> None:
    """Fail unless a person's turn comes last.

    Raises:
        ApiError: it does not.
    """
    if not messages or messages[-1].role != "user":
        raise ApiError(400, "messages: the last message must have the role 'user'", "messages")


def with_system(messages: Sequence[Message], default: str) -> list[Message]:
    """One system message first, the caller's own when there is any, then the turns."""
    own = "\n\n".join(message.content for message in messages if message.role == "system")
    return [Message("system", own or default), *(message for message in messages if message.role != "system")]


def fit(messages: Sequence[Message], render: Render, context_tokens: int, answer_tokens: int) -> Fitted:
    """Render as much of the conversation as the context holds beside `answer_tokens` for the answer.

    The system message (first) and the newest user turn always stay; the oldest turns are dropped, and the rest
    always starts with a user turn. When even that leaves less room than asked for, the answer gets what is left.

    Raises:
        ApiError: system message and newest turn alone fill the context.
    """
    system, turns = messages[0], messages[1:]
    starts = [index for index, message in enumerate(turns) if message.role == "user"]
    if starts[0] != 0:
        starts.insert(0, 0)  # a caller may begin with the assistant's greeting

    def prompt_from(start: int) -> list[int]:
        kept = [system, *turns[start:]]
        return render([{"role": message.role, "content": message.content} for message in kept])

    low, high = 0, len(starts) - 1  # the fewest dropped turns that fit; fitting is monotonic in them
    while low < high:
        middle = (low + high) // 2
        if len(prompt_from(starts[middle])) + answer_tokens <= context_tokens:
            high = middle
        else:
            low = middle + 1
    prompt = prompt_from(starts[low])
    room = context_tokens - len(prompt)
    if room < 1:
        raise ApiError(
            400,
            f"the newest message has {len(prompt)} tokens with its system message; the context holds {context_tokens}",
            "messages",
            "context_length_exceeded",
        )
    return Fitted(prompt, room, starts[low])

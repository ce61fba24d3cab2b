"""Conversations as token ids, from the one chat template: prompts, answers, and training text with its loss mask.

Special tokens that somebody typed are broken up, so that text can't forge a turn, in training as in serving.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from pipelines.core.errors import BadInput
from pipelines.core.jsonl import Row
from pipelines.core.records import Conversation

Chat = Sequence[dict[str, str]]


class Rendered(NamedTuple):
    """`ids` of a whole conversation; `assistant` is 1 where a token belongs to an assistant turn or ends it."""

    ids: list[int]
    assistant: list[int]


def plain(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """`text` with special tokens broken up, so that they are read as typed characters."""
    for token in sorted(filter(None, tokenizer.all_special_tokens), key=len, reverse=True):
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def _plain_chat(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> list[dict[str, str]]:
    return [message | {"content": plain(tokenizer, message["content"])} for message in chat]


def render_conversation(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> Rendered:
    """The whole of `chat` with its loss mask, born together.

    Raises:
        BadInput: it has no assistant turn, so there would be nothing to learn.
    """
    rendered = tokenizer.apply_chat_template(
        _plain_chat(tokenizer, chat), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    assistant = list(rendered["assistant_masks"])
    if not any(assistant):
        raise BadInput(f"a conversation has no assistant turn to learn from: {str(list(chat))[:200]}")
    return Rendered(list(rendered["input_ids"]), assistant)


def rendered_conversations(
    rows: Iterable[Row], tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> Iterator[Rendered]:
    """Demonstrations as ids and loss masks, cut at `max_tokens`; one that then has nothing to learn is left out."""
    for row in rows:
        ids, assistant = render_conversation(tokenizer, Conversation.from_row(row).chat)
        if any(assistant[:max_tokens]):
            yield Rendered(ids[:max_tokens], assistant[:max_tokens])


def render_prompt_text(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> str:
    """`chat` up to where the assistant answers, as text."""
    text: str = tokenizer.apply_chat_template(_plain_chat(tokenizer, chat), tokenize=False, add_generation_prompt=True)
    return text


def render_prompt(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> list[int]:
    """`chat` up to where the assistant answers, as token ids."""
    ids: list[int] = tokenizer(render_prompt_text(tokenizer, chat), add_special_tokens=False)["input_ids"]
    return ids


def render_answer(tokenizer: PreTrainedTokenizerBase, chat: Chat, answer: str, stopped: bool = True) -> list[int]:
    """The prompt `chat` with `answer`: what a reward model scores at its last token.

    The answer is tokenized by itself, as a policy writes it: no token spans the border. Only one that the model
    `stopped` itself has the end token, or a reward model could tell those that the limit cut by their length alone.
    """
    ids: list[int] = tokenizer(plain(tokenizer, answer), add_special_tokens=False)["input_ids"]
    return [*render_prompt(tokenizer, chat), *ids, *([tokenizer.eos_token_id] if stopped else [])]

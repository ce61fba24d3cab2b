"""A conversation as token ids with its loss mask, born together from the one chat template."""

from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from pipelines.core.errors import BadInput


class Rendered(NamedTuple):
    """`ids` of a whole conversation; `assistant` is 1 where a token belongs to an assistant turn or ends it."""

    ids: list[int]
    assistant: list[int]


def render_conversation(tokenizer: PreTrainedTokenizerBase, chat: Sequence[dict[str, str]]) -> Rendered:
    """Render `chat` by the tokenizer's template.

    Raises:
        BadInput: it has no assistant turn, so there would be nothing to learn.
    """
    rendered = tokenizer.apply_chat_template(
        list(chat), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    assistant = list(rendered["assistant_masks"])
    if not any(assistant):
        raise BadInput(f"a conversation has no assistant turn to learn from: {str(list(chat))[:200]}")
    return Rendered(list(rendered["input_ids"]), assistant)


def render_answer(tokenizer: PreTrainedTokenizerBase, chat: Sequence[dict[str, str]], answer: str) -> list[int]:
    """Token ids of the prompt `chat` with `answer` and the end token: what a reward model scores at its last token."""
    prompt = tokenizer.apply_chat_template(list(chat), tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer(prompt + answer, add_special_tokens=False)["input_ids"]
    return [*ids, tokenizer.eos_token_id]

"""Conversations and accounts as files that their owner takes along."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from typing import Any

from fastapi.encoders import jsonable_encoder

from serving.stores.documents import Conversation, Page, StoredMessage
from serving.stores.open import Stores

SPEAKERS = {"user": "You", "assistant": "Assistant"}
AT_ONCE = 100


def as_markdown(conversation: Conversation, messages: Sequence[StoredMessage]) -> str:
    """The conversation to read."""
    turns = [f"## {SPEAKERS[message.role]}\n\n{message.content}\n" for message in messages]
    return "\n".join([f"# {conversation.title}\n", *turns])


def as_json(conversation: Conversation, messages: Sequence[StoredMessage]) -> dict[str, Any]:
    """The conversation to process, with every field that is kept."""
    encoded: dict[str, Any] = jsonable_encoder(asdict(conversation))
    return encoded | {"messages": [jsonable_encoder(asdict(message)) for message in messages]}


async def everything_of(stores: Stores, user_id: str) -> dict[str, Any]:
    """Conversations with messages and feedback, devices, keys and usage of one user."""
    documents, conversations = stores.documents, []
    page = Page(AT_ONCE)
    while found := await documents.conversations(user_id, page):
        for conversation in found:
            messages = await documents.messages(user_id, conversation.conversation_id)
            given = await documents.feedback(user_id, [message.message_id for message in messages])
            feedback = [jsonable_encoder(asdict(each)) for each in given]
            conversations.append(as_json(conversation, messages) | {"feedback": feedback})
        page = Page(AT_ONCE, (found[-1].last_updated, found[-1].conversation_id))
    sessions = [asdict(session) for session in await stores.sessions.of_user(user_id)]
    for session in sessions:
        del session["auth_token"]
    return {
        "conversations": conversations,
        "sessions": jsonable_encoder(sessions),
        "keys": [jsonable_encoder(asdict(key)) for key in await stores.accounts.keys(user_id)],
        "usage": [jsonable_encoder(each._asdict()) for each in await stores.accounts.usage(user_id, date.min)],
    }

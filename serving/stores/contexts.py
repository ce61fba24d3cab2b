"""The context cache in Valkey: what the next turn of a conversation needs, without reading its messages again."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from valkey.asyncio import Valkey

from serving.stores.valkey import answering

KEPT = timedelta(hours=1)
MAX_CHARACTERS = 256_000  # of one entry; longer conversations are read from the document store


@dataclass(frozen=True, slots=True)
class Context:
    """A conversation's turns as of `last_updated`; with another time in the conversation itself they are stale."""

    conversation_id: str
    recent_messages: list[tuple[str, str]]  # role and content
    next_position: int
    token_count: int  # of the last prompt and its answer
    last_accessed: str  # ISO 8601, as the others: the cache compares and never calculates with them
    last_updated: str
    model_context: str  # the model whose tokens were counted


class Contexts:
    """Keeps contexts for a while. Raises `StoreDown` when the server does not answer."""

    def __init__(self, client: Valkey) -> None:
        self._client = client

    async def get(self, conversation_id: str, last_updated: datetime) -> Context | None:
        """The context, unless the conversation has changed since."""
        with answering():
            text = await self._client.getex(_key(conversation_id), ex=KEPT)
        if text is None:
            return None
        values: dict[str, Any] = json.loads(text)
        values["recent_messages"] = [(role, content) for role, content in values["recent_messages"]]
        context = Context(**values)
        return context if context.last_updated == last_updated.isoformat() else None

    async def put(self, context: Context) -> None:
        text = json.dumps(asdict(context))
        with answering():
            if len(text) <= MAX_CHARACTERS:
                await self._client.set(_key(context.conversation_id), text, ex=KEPT)
            else:
                await self._client.delete(_key(context.conversation_id))

    async def forget(self, conversation_ids: list[str]) -> None:
        """Drop what is kept of deleted conversations."""
        if conversation_ids:
            with answering():
                await self._client.delete(*map(_key, conversation_ids))


def _key(conversation_id: str) -> str:
    return f"context:{conversation_id}"

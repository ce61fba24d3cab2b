"""Keeps an answer as it was really shown, and what the next turn of its conversation needs."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from pipelines.core.records import Message
from serving.assistant import Delta, End
from serving.backend import Backend, Product
from serving.stores.contexts import Context
from serving.stores.documents import Conversation, StoredMessage, new_id, now


def turns_of(stored: Sequence[StoredMessage]) -> list[Message]:
    """Stored messages as a prompt is made of them; an answer that was stopped before its first word is none."""
    return [Message(message.role, message.content) for message in stored if message.content]


class Recorder:
    """Stores an answer as it was really shown, also when its reader left in the middle."""

    def __init__(
        self,
        backend: Backend,
        product: Product,
        conversation: Conversation,
        asked: list[Message],
        question: StoredMessage,
    ) -> None:
        self.message_id = new_id("msg")
        self._backend = backend
        self._stores = product.stores
        self._conversation = conversation
        self._asked = asked
        self._question = question

    async def record(self, events: AsyncIterator[Delta | End]) -> AsyncIterator[Delta | End]:
        """Pass `events` on; the answer is stored before its end is told."""
        shown: list[str] = []
        stored = False
        try:
            async with aclosing(events) as closing:  # type: ignore[type-var]
                async for event in closing:
                    if isinstance(event, Delta):
                        shown.append(event.text)
                    else:
                        await self._store("".join(shown), event)
                        stored = True
                    yield event
        finally:
            if not stored:  # the reader's task is being cancelled
                self._backend.later(self._store("".join(shown), End("cancelled", 0, len(shown), None, 0)))

    async def _store(self, text: str, end: End) -> None:
        metadata = {"model_version": self._backend.release.model_id, "finish_reason": end.finish_reason}
        if end.blocked is not None:
            metadata |= {"moderated": end.blocked.category, "moderated_place": end.blocked.place}
        asked = self._question
        answer = StoredMessage(
            self.message_id,
            asked.conversation_id,
            asked.user_id,
            asked.position + 1,
            "assistant",
            text,
            now(),
            end.completion_tokens,
            metadata,
        )
        if await self._stores.documents.conversation(asked.user_id, asked.conversation_id) is None:
            return  # deleted while it was being answered
        await self._stores.documents.put_message(answer)
        if end.finish_reason != "cancelled":
            await self._stores.contexts.put(self._context(answer, end))

    def _context(self, answer: StoredMessage, end: End) -> Context:
        messages = [*self._asked, *turns_of([answer])]
        return Context(
            conversation_id=answer.conversation_id,
            recent_messages=[(message.role, message.content) for message in messages],
            next_position=answer.position + 1,
            token_count=end.prompt_tokens + end.completion_tokens,
            last_accessed=answer.timestamp.isoformat(),
            last_updated=self._conversation.last_updated.isoformat(),
            model_context=self._backend.release.model_id,
        )

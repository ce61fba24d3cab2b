"""The chat page's conversations: kept on the server, so that they survive a reload; answers come as events."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from pipelines.core.records import Message
from serving.assistant import Answer, Delta, End, Options
from serving.backend import Product, TheBackend, TheProduct
from serving.errors import ApiError
from serving.schemas import NewMessage
from serving.stores.documents import Conversation, StoredMessage, new_id, now
from serving.streaming import Envelope, cancel_when_gone, chunks, event_stream
from serving.visitors import CurrentUser

router = APIRouter(prefix="/api/conversations", tags=["conversations"])

MAX_LISTED = 200
TITLE_CHARACTERS = 60
UNTITLED = "New chat"

_saving: set[asyncio.Task[None]] = set()


def _summary(conversation: Conversation) -> dict[str, Any]:
    return {
        "conversation_id": conversation.conversation_id,
        "title": conversation.title,
        "created_at": conversation.created_at.isoformat(),
        "last_updated": conversation.last_updated.isoformat(),
    }


async def _owned(product: Product, user: str, conversation_id: str) -> Conversation:
    conversation = await product.store.conversation(user, conversation_id)
    if conversation is None:
        raise ApiError(404, f"there is no conversation {conversation_id!r}", "conversation_id")
    return conversation


def title_of(text: str) -> str:
    """A conversation's title: the start of its first message on one line."""
    line = " ".join(text.split())
    return line if len(line) <= TITLE_CHARACTERS else line[: TITLE_CHARACTERS - 1].rstrip() + "…"


@router.post("", status_code=201)
async def create_conversation(user: CurrentUser, product: TheProduct) -> dict[str, Any]:
    """Start an empty conversation."""
    at = now()
    conversation = Conversation(new_id("conv"), user, UNTITLED, at, at, {})
    await product.store.put_conversation(conversation)
    return _summary(conversation)


@router.get("")
async def list_conversations(user: CurrentUser, product: TheProduct) -> dict[str, Any]:
    """The visitor's conversations, the last used first."""
    return {"conversations": [_summary(each) for each in await product.store.conversations(user, MAX_LISTED)]}


@router.get("/{conversation_id}")
async def read_conversation(conversation_id: str, user: CurrentUser, product: TheProduct) -> dict[str, Any]:
    """A conversation with its messages and the visitor's thumbs."""
    conversation = await _owned(product, user, conversation_id)
    messages = await product.store.messages(user, conversation_id)
    given = await product.store.feedback(user, [m.message_id for m in messages if m.role == "assistant"])
    ratings = {feedback.message_id: feedback.rating for feedback in given}
    return _summary(conversation) | {
        "messages": [
            {
                "message_id": message.message_id,
                "role": message.role,
                "content": message.content,
                "timestamp": message.timestamp.isoformat(),
                "tokens": message.tokens,
                "rating": ratings.get(message.message_id),
                "metadata": message.metadata,
            }
            for message in messages
        ]
    }


@router.delete("/{conversation_id}", status_code=204)
async def delete_conversation(conversation_id: str, user: CurrentUser, product: TheProduct) -> None:
    """Delete a conversation with its messages and feedback."""
    if not await product.store.delete_conversation(user, conversation_id):
        raise ApiError(404, f"there is no conversation {conversation_id!r}", "conversation_id")


@router.post("/{conversation_id}/messages", response_model=None)
async def create_message(
    conversation_id: str,
    body: NewMessage,
    request: Request,
    user: CurrentUser,
    backend: TheBackend,
    product: TheProduct,
) -> Response:
    """Add a person's turn and stream the answer as OpenAI chunks; both are stored as they were shown.

    The turn is stored before the first byte of the answer, the answer before its last one.
    """
    conversation = await _owned(product, user, conversation_id)
    earlier = await product.store.messages(user, conversation_id)
    turns = [Message(message.role, message.content) for message in earlier if message.content]
    answer = await product.assistant.prepare([*turns, Message("user", body.content)], Options())
    cancel_when_gone(request, answer)
    try:
        position = earlier[-1].position + 1 if earlier else 0
        question = StoredMessage(new_id("msg"), conversation_id, user, position, "user", body.content, now(), 0, {})
        await product.store.add_message(question)
        title = conversation.title if earlier else title_of(body.content)
        await product.store.put_conversation(replace(conversation, title=title, last_updated=question.timestamp))
    except BaseException:
        answer.cancel()
        raise
    recorder = Recorder(product, question, new_id("msg"), backend.release.model_id)
    extra = {"conversation_id": conversation_id, "message_id": recorder.message_id, "title": title}
    return event_stream(chunks(recorder.record(answer), Envelope(backend.release, extra), include_usage=False))


class Recorder:
    """Stores an answer as it was really shown, also when its reader left in the middle."""

    def __init__(self, product: Product, question: StoredMessage, message_id: str, model_id: str) -> None:
        self.message_id = message_id
        self._product = product
        self._question = question
        self._model_id = model_id

    async def record(self, answer: Answer) -> AsyncIterator[Delta | End]:
        """Pass the events of `answer` on; the answer is stored before its end is told."""
        shown: list[str] = []
        stored = False
        try:
            async with aclosing(answer.events()) as events:  # type: ignore[type-var]
                async for event in events:
                    if isinstance(event, Delta):
                        shown.append(event.text)
                    else:
                        await self._store("".join(shown), event)
                        stored = True
                    yield event
        finally:
            if not stored:
                # The reader's task is being cancelled; the store call must outlive it.
                cut_off = End("cancelled", 0, len(shown), None, 0)
                task = asyncio.create_task(self._store("".join(shown), cut_off))
                _saving.add(task)
                task.add_done_callback(_saving.discard)

    async def _store(self, text: str, end: End) -> None:
        metadata = {"model_version": self._model_id, "finish_reason": end.finish_reason}
        if end.blocked is not None:
            metadata |= {"moderated": end.blocked.category, "moderated_place": end.blocked.place}
        asked = self._question
        message = StoredMessage(
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
        await self._product.store.add_message(message)

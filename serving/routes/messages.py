"""A conversation's turns: ask, edit and regenerate; answers come as events and are stored as they were shown."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from pipelines.core.records import Message
from serving.accounting import counted, require_quota
from serving.answers import STREAM
from serving.assistant import Answer, Delta, End, Options
from serving.backend import Backend, Product, TheBackend, TheProduct
from serving.errors import ApiError
from serving.identity import Caller, CurrentUser
from serving.routes.conversations import UNTITLED, owned, title_of
from serving.schemas import MAX_CHARACTERS, Body, Id, example
from serving.stores.contexts import Context
from serving.stores.documents import REPLACED, Conversation, StoredMessage, new_id, now
from serving.streaming import Envelope, cancel_when_gone, chunks, event_stream

router = APIRouter(prefix="/api/conversations/{conversation_id}/messages", tags=["conversations"])


class NewMessage(Body):
    """What a person says."""

    model_config = example(content="What is the capital of France?")
    content: Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS)]


@router.post("", response_class=Response, responses=STREAM)
async def create_message(
    conversation_id: Id,
    body: NewMessage,
    request: Request,
    caller: CurrentUser,
    backend: TheBackend,
    product: TheProduct,
) -> Response:
    """Add a person's turn and stream the answer as OpenAI chunks.

    The turn is stored before the first byte of the answer, the answer before its last one.
    """
    conversation = await owned(product, caller.user_id, conversation_id)
    turns, position = await _so_far(product, conversation)
    return await Turn(request, caller, backend, product, conversation).ask(turns, position, body.content, [])


@router.put("/{message_id}", response_class=Response, responses=STREAM)
async def edit_message(
    conversation_id: Id,
    message_id: Id,
    body: NewMessage,
    request: Request,
    caller: CurrentUser,
    backend: TheBackend,
    product: TheProduct,
) -> Response:
    """Say a turn differently and stream a new answer; the old turn and all after it leave the conversation."""
    conversation = await owned(product, caller.user_id, conversation_id)
    before, after = await _part_at(product, conversation, message_id, "user")
    turn = Turn(request, caller, backend, product, conversation)
    return await turn.ask(_messages(before), after[0].position, body.content, after)


@router.post("/{message_id}/regenerate", response_class=Response, responses=STREAM)
async def regenerate_message(
    conversation_id: Id,
    message_id: Id,
    request: Request,
    caller: CurrentUser,
    backend: TheBackend,
    product: TheProduct,
) -> Response:
    """Stream another answer to the same question; the old answer and all after it leave the conversation."""
    conversation = await owned(product, caller.user_id, conversation_id)
    before, after = await _part_at(product, conversation, message_id, "assistant")
    if not before or before[-1].role != "user":
        raise ApiError(409, f"{message_id!r} answers no question", "message_id")
    return await Turn(request, caller, backend, product, conversation).again(before, after)


async def _so_far(product: Product, conversation: Conversation) -> tuple[list[Message], int]:
    """The turns of a conversation, from the cache where it is fresh, and the position of the next one."""
    cached = await product.stores.contexts.get(conversation.conversation_id, conversation.last_updated)
    if cached is not None:
        return [Message(role, content) for role, content in cached.recent_messages], cached.next_position  # type: ignore[arg-type]
    stored = await product.stores.documents.messages(conversation.user_id, conversation.conversation_id)
    return _messages(stored), stored[-1].position + 1 if stored else 0


def _messages(stored: Sequence[StoredMessage]) -> list[Message]:
    return [Message(message.role, message.content) for message in stored if message.content]


async def _part_at(
    product: Product, conversation: Conversation, message_id: str, role: str
) -> tuple[list[StoredMessage], list[StoredMessage]]:
    """The turns before a message, and the message with those after it.

    Raises:
        ApiError: the conversation shows no such turn of `role`.
    """
    stored = await product.stores.documents.messages(conversation.user_id, conversation.conversation_id)
    for index, message in enumerate(stored):
        if message.message_id == message_id and message.role == role:
            return stored[:index], stored[index:]
    raise ApiError(404, f"there is no message {message_id!r} of the {role} in this conversation", "message_id")


class Turn:
    """One question and its answer in a conversation: admitted, stored, streamed."""

    def __init__(
        self, request: Request, caller: Caller, backend: Backend, product: Product, conversation: Conversation
    ) -> None:
        self._request = request
        self._caller = caller
        self._backend = backend
        self._product = product
        self._conversation = conversation

    async def ask(
        self, turns: list[Message], position: int, content: str, replaced: Sequence[StoredMessage]
    ) -> Response:
        """Store a new question in the place of `replaced` and stream its answer."""
        asked = [*turns, Message("user", content)]
        answer = await self._admit(asked)
        try:
            tokens = await self._product.assistant.count_tokens(content)
            question = StoredMessage(
                new_id("msg"),
                self._conversation.conversation_id,
                self._caller.user_id,
                position,
                "user",
                content,
                now(),
                tokens,
                {},
            )
            await self._replace(replaced, question.timestamp)
            await self._product.stores.documents.put_message(question)
            title = title_of(content) if self._conversation.title == UNTITLED else self._conversation.title
            return await self._stream(answer, asked, question, title)
        except BaseException:
            answer.cancel()
            raise

    async def again(self, before: Sequence[StoredMessage], replaced: Sequence[StoredMessage]) -> Response:
        """Stream another answer to the last of `before`."""
        asked = _messages(before)
        answer = await self._admit(asked)
        try:
            await self._replace(replaced, now())
            return await self._stream(answer, asked, before[-1], self._conversation.title)
        except BaseException:
            answer.cancel()
            raise

    async def _admit(self, asked: Sequence[Message]) -> Answer:
        await require_quota(self._backend, self._product, self._caller)
        answer = await self._product.assistant.prepare(asked, Options())
        cancel_when_gone(self._request, answer)
        return answer

    async def _replace(self, messages: Sequence[StoredMessage], at: datetime) -> None:
        for message in messages:
            old = replace(message, metadata=message.metadata | {REPLACED: at.isoformat()})
            await self._product.stores.documents.put_message(old)

    async def _stream(self, answer: Answer, asked: list[Message], question: StoredMessage, title: str) -> Response:
        conversation = replace(self._conversation, title=title, last_updated=now())
        await self._product.stores.documents.put_conversation(conversation)
        recorder = Recorder(self._backend, self._product, conversation, asked, question)
        events = counted(answer, self._backend, self._product, self._caller, Options())
        extra = {
            "conversation_id": conversation.conversation_id,
            "question_id": question.message_id,
            "message_id": recorder.message_id,
            "title": title,
        }
        envelope = Envelope(self._backend.release, extra)
        return event_stream(chunks(recorder.record(events), envelope, include_usage=False))


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
        messages = [*self._asked, *_messages([answer])]
        return Context(
            conversation_id=answer.conversation_id,
            recent_messages=[(message.role, message.content) for message in messages],
            next_position=answer.position + 1,
            token_count=end.prompt_tokens + end.completion_tokens,
            last_accessed=answer.timestamp.isoformat(),
            last_updated=self._conversation.last_updated.isoformat(),
            model_context=self._backend.release.model_id,
        )

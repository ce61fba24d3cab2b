"""A conversation's turns: ask, edit and regenerate; answers come as events and are stored as they were shown."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from pipelines.core.records import Message
from serving.accounting import counted, require_quota
from serving.answers import STREAM
from serving.assistant import Answer, Options
from serving.backend import Backend, Product, TheBackend, TheProduct
from serving.errors import ApiError
from serving.identity import Caller, CurrentUser
from serving.recorder import Recorder, turns_of
from serving.routes.conversations import UNTITLED, missing, owned, title_of
from serving.schemas import MAX_CHARACTERS, Body, Id, example
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
    return await turn.ask(turns_of(before), after[0].position, body.content, after)


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
    return turns_of(stored), stored[-1].position + 1 if stored else 0


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
            title = title_of(content) if self._conversation.title == UNTITLED else self._conversation.title
            conversation = await self._touch(title)
            await self._replace(replaced, question.timestamp)
            await self._product.stores.documents.put_message(question)
            return self._stream(answer, asked, question, conversation)
        except BaseException:
            answer.cancel()
            raise

    async def again(self, before: Sequence[StoredMessage], replaced: Sequence[StoredMessage]) -> Response:
        """Stream another answer to the last of `before`."""
        asked = turns_of(before)
        answer = await self._admit(asked)
        try:
            conversation = await self._touch(self._conversation.title)
            await self._replace(replaced, conversation.last_updated)
            return self._stream(answer, asked, before[-1], conversation)
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

    async def _touch(self, title: str) -> Conversation:
        """Note that the conversation goes on.

        Raises:
            ApiError: it was deleted meanwhile.
        """
        conversation = replace(self._conversation, title=title, last_updated=now())
        if not await self._product.stores.documents.change_conversation(conversation):
            raise missing(conversation.conversation_id)
        return conversation

    def _stream(
        self, answer: Answer, asked: list[Message], question: StoredMessage, conversation: Conversation
    ) -> Response:
        recorder = Recorder(self._backend, self._product, conversation, asked, question)
        events = counted(answer, self._backend, self._product, self._caller, Options())
        extra = {
            "conversation_id": conversation.conversation_id,
            "question_id": question.message_id,
            "message_id": recorder.message_id,
            "title": conversation.title,
        }
        envelope = Envelope(self._backend.release, extra)
        return event_stream(chunks(recorder.record(events), envelope, include_usage=False))

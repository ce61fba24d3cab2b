"""`/api/conversations`: create, list, search, read, rename, delete, export. Their turns are in `messages`."""

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Query, Response
from fastapi.responses import PlainTextResponse
from pydantic import Field

from serving.backend import Product, TheProduct
from serving.errors import ApiError
from serving.exports import as_json, as_markdown
from serving.identity import CurrentUser
from serving.schemas import Body, Id, Line, example
from serving.stores.documents import Conversation, Feedback, Page, Rating, StoredMessage, new_id, now

router = APIRouter(prefix="/api/conversations", tags=["conversations"])

MAX_LISTED = 100
TITLE_CHARACTERS = 60  # of a title that is made from the first message
UNTITLED = "New chat"

Title = Annotated[Line, Field(min_length=1, max_length=200)]


class NewTitle(Body):
    model_config = example(title="Plans for Paris")
    title: Title


class Summary(Body):
    """A conversation as the list shows it."""

    conversation_id: str
    title: str
    created_at: datetime
    last_updated: datetime

    @classmethod
    def of(cls, conversation: Conversation) -> Self:
        return cls(
            conversation_id=conversation.conversation_id,
            title=conversation.title,
            created_at=conversation.created_at,
            last_updated=conversation.last_updated,
        )


class Summaries(Body):
    """One page of the list; `next` asks for the one after it, null at the end."""

    conversations: list[Summary]
    next: str | None


class Turn(Body):
    """One message, with the reader's own thumb on it."""

    message_id: str
    role: Literal["user", "assistant"]
    content: str
    timestamp: datetime
    tokens: int
    rating: Rating | None
    metadata: dict[str, str]

    @classmethod
    def of(cls, message: StoredMessage, feedback: Feedback | None) -> Self:
        return cls(
            message_id=message.message_id,
            role=message.role,
            content=message.content,
            timestamp=message.timestamp,
            tokens=message.tokens,
            rating=feedback.rating if feedback else None,
            metadata=message.metadata,
        )


class WithTurns(Summary):
    messages: list[Turn]


async def owned(product: Product, user_id: str, conversation_id: str) -> Conversation:
    """The user's conversation.

    Raises:
        ApiError: it is not there, or somebody else's, which is the same to the caller.
    """
    conversation = await product.stores.documents.conversation(user_id, conversation_id)
    if conversation is None:
        raise missing(conversation_id)
    return conversation


def missing(conversation_id: str) -> ApiError:
    """What is said of a conversation that the caller has not."""
    return ApiError(404, f"there is no conversation {conversation_id!r}", "conversation_id")


def title_of(text: str) -> str:
    """A conversation's title: the start of its first message on one line."""
    line = " ".join(text.split())
    return line if len(line) <= TITLE_CHARACTERS else line[: TITLE_CHARACTERS - 1].rstrip() + "…"


def cursor_of(conversation: Conversation) -> str:
    """Where the next page begins: after this conversation."""
    return f"{conversation.last_updated.isoformat()}_{conversation.conversation_id}"


def _after(cursor: str | None) -> tuple[datetime, str] | None:
    if cursor is None:
        return None
    text, _, identifier = cursor.partition("_")
    try:
        at = datetime.fromisoformat(text)
        at.timestamp()  # also fails for years that no zone can be applied to
    except (ValueError, OverflowError) as error:
        raise ApiError(400, "cursor: take the value of `next` as it came", "cursor") from error
    if at.tzinfo is None:
        raise ApiError(400, "cursor: take the value of `next` as it came", "cursor")
    return at, identifier


@router.post("", status_code=201)
async def create_conversation(caller: CurrentUser, product: TheProduct) -> Summary:
    """Start an empty conversation."""
    at = now()
    conversation = Conversation(new_id("conv"), caller.user_id, UNTITLED, at, at, {})
    await product.stores.documents.put_conversation(conversation)
    return Summary.of(conversation)


@router.get("")
async def list_conversations(
    caller: CurrentUser,
    product: TheProduct,
    search: Annotated[Line, Query(max_length=200)] = "",
    limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 50,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> Summaries:
    """The caller's conversations, the last used first; `search` looks in titles and messages."""
    page = Page(limit + 1, _after(cursor), search)
    found = await product.stores.documents.conversations(caller.user_id, page)
    following = cursor_of(found[limit - 1]) if len(found) > limit else None
    return Summaries(conversations=[Summary.of(each) for each in found[:limit]], next=following)


@router.get("/{conversation_id}")
async def read_conversation(conversation_id: Id, caller: CurrentUser, product: TheProduct) -> WithTurns:
    """A conversation with its messages and the caller's thumbs."""
    conversation = await owned(product, caller.user_id, conversation_id)
    documents = product.stores.documents
    messages = await documents.messages(caller.user_id, conversation_id)
    given = await documents.feedback(caller.user_id, [m.message_id for m in messages if m.role == "assistant"])
    by_message = {feedback.message_id: feedback for feedback in given}
    turns = [Turn.of(message, by_message.get(message.message_id)) for message in messages]
    return WithTurns(messages=turns, **Summary.of(conversation).model_dump())


@router.patch("/{conversation_id}")
async def rename_conversation(conversation_id: Id, body: NewTitle, caller: CurrentUser, product: TheProduct) -> Summary:
    """Give a conversation another title."""
    renamed = replace(await owned(product, caller.user_id, conversation_id), title=body.title)
    if not await product.stores.documents.change_conversation(renamed):
        raise missing(conversation_id)
    return Summary.of(renamed)


@router.delete("/{conversation_id}", status_code=204)
async def delete_conversation(conversation_id: Id, caller: CurrentUser, product: TheProduct) -> None:
    """Delete a conversation with its messages and feedback."""
    if not await product.stores.documents.delete_conversation(caller.user_id, conversation_id):
        raise missing(conversation_id)
    await product.stores.contexts.forget([conversation_id])


@router.get(
    "/{conversation_id}/export",
    response_model=dict[str, Any],
    responses={200: {"content": {"text/markdown": {"schema": {"type": "string"}}}}},
)
async def export_conversation(
    conversation_id: Id,
    caller: CurrentUser,
    product: TheProduct,
    response: Response,
    format: Annotated[Literal["json", "markdown"], Query()] = "markdown",
) -> Any:
    """A conversation as a file, to read or to process."""
    conversation = await owned(product, caller.user_id, conversation_id)
    messages = await product.stores.documents.messages(caller.user_id, conversation_id)
    suffix = "md" if format == "markdown" else "json"
    disposition = {"Content-Disposition": f'attachment; filename="{conversation_id}.{suffix}"'}
    if format == "markdown":
        return PlainTextResponse(as_markdown(conversation, messages), headers=disposition, media_type="text/markdown")
    response.headers.update(disposition)
    return as_json(conversation, messages)

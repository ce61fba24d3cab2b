"""Conversations, messages, feedback and logs in a document store: the records and the interface.

Every read and write for a person names the user, so that one person's documents can't be reached through another's id.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, NamedTuple, Protocol

Rating = Literal["up", "down"]
REPLACED = "replaced"  # in a message's metadata: when a newer turn took its place


@dataclass(frozen=True, slots=True)
class Conversation:
    """One chat of one user."""

    conversation_id: str
    user_id: str
    title: str
    created_at: datetime
    last_updated: datetime
    metadata: dict[str, str]


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """One turn as it was really shown. `metadata` holds model_version, finish_reason and moderation for answers.

    A turn that was edited or generated anew is kept with `REPLACED` in its metadata and is no part of the
    conversation any more.
    """

    message_id: str
    conversation_id: str
    user_id: str
    position: int  # within the conversation, from 0
    role: Literal["user", "assistant"]
    content: str
    timestamp: datetime
    tokens: int
    metadata: dict[str, str]


@dataclass(frozen=True, slots=True)
class Feedback:
    """A person's judgement of one answer; a second one on the same answer replaces the first."""

    feedback_id: str
    message_id: str
    user_id: str
    rating: Rating
    feedback_text: str
    timestamp: datetime
    action_taken: str  # by an administrator
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RequestLog:
    """One request, without its body, its query and its secrets."""

    request_id: str
    timestamp: datetime
    user_id: str  # "" before anybody was known
    conversation_id: str
    endpoint: str  # method and route, with the names of its parameters
    request_size: int  # bytes
    response_time: float  # seconds to the last byte
    status_code: int
    error_type: str


@dataclass(frozen=True, slots=True)
class ModelMetric:
    """One answer, as the model saw it."""

    timestamp: datetime
    model_id: str
    region: str
    inference_time: float  # seconds
    tokens_processed: int
    prompt_tokens: int
    completion_tokens: int
    temperature: float
    max_tokens: int
    gpu_utilization: float | None  # None: there is no GPU


class Page(NamedTuple):
    """Which part of a list is wanted: at most `limit` after the one that `after` names, with `search` in its text."""

    limit: int
    after: tuple[datetime, str] | None = None  # last_updated and conversation_id
    search: str = ""


class Counts(NamedTuple):
    """How much there is, for the figures."""

    conversations: int
    messages: int
    feedback_up: int
    feedback_down: int


def new_id(kind: str) -> str:
    """A random id that says what it names: conv-…, msg-…, fb-…"""
    return f"{kind}-{uuid.uuid4().hex}"


def now() -> datetime:
    """The time in UTC at the millisecond that the store keeps."""
    time = datetime.now(UTC)
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


class DocumentStore(Protocol):
    """What the chat product keeps. Every method raises `StoreDown` when the store does not answer."""

    async def prepare(self) -> None: ...
    async def ping(self) -> None: ...
    async def close(self) -> None: ...
    async def put_conversation(self, conversation: Conversation) -> None: ...

    async def change_conversation(self, conversation: Conversation) -> bool:
        """Replace a conversation where it still is; one that was deleted meanwhile does not come back."""

    async def conversation(self, user_id: str, conversation_id: str) -> Conversation | None: ...
    async def conversations(self, user_id: str, page: Page) -> list[Conversation]: ...
    async def delete_conversation(self, user_id: str, conversation_id: str) -> bool: ...
    async def put_message(self, message: StoredMessage) -> None: ...
    async def message(self, user_id: str, message_id: str) -> StoredMessage | None: ...
    async def messages(self, user_id: str, conversation_id: str) -> list[StoredMessage]: ...
    async def put_feedback(self, feedback: Feedback) -> None: ...
    async def feedback(self, user_id: str, message_ids: list[str]) -> list[Feedback]: ...

    async def adopt(self, visitor_id: str, user_id: str) -> None:
        """Hand everything of a visitor over to the account that the visitor logged in to."""

    async def delete_user(self, user_id: str) -> list[str]:
        """Remove everything of a user, also from the logs; returns the ids of the conversations."""

    async def flagged(self, limit: int) -> list[StoredMessage]:
        """For administrators: the newest messages that moderation blocked, of all users."""

    async def judged(self, rating: Rating, limit: int) -> list[Feedback]:
        """For administrators: the newest feedback of all users."""

    async def judgement(self, feedback_id: str) -> Feedback | None:
        """For administrators: one feedback of whomever."""

    async def answer(self, message_id: str) -> StoredMessage | None:
        """For administrators: one answer, of whomever."""

    async def begun_since(self, at: datetime) -> list[Conversation]:
        """For administrators: the conversations that began at `at` or later, of all users."""

    async def requests_of(self, conversation_id: str) -> list[RequestLog]:
        """For administrators: what was asked for in one conversation."""

    async def counts(self) -> Counts: ...
    async def log(self, records: Sequence[RequestLog | ModelMetric]) -> None: ...

"""Conversations, messages and feedback in a document store: the interface and its MongoDB-protocol implementation.

Every read and write names the user, so that one person's documents can't be reached through another's id.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

DATABASE = "colloquy"
TIMEOUT_MS = 3000

Rating = Literal["up", "down"]


class StoreDown(Exception):
    """The store did not answer."""


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
    """One turn as it was really shown. `metadata` holds model_version, finish_reason and moderation for answers."""

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
    action_taken: str


def new_id(kind: str) -> str:
    """A random id that says what it names: conv-…, msg-…, fb-…"""
    return f"{kind}-{uuid.uuid4().hex}"


def now() -> datetime:
    """The time in UTC at the millisecond that the store keeps."""
    time = datetime.now(UTC)
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


class DocumentStore(Protocol):
    """What the chat product keeps. Every method raises `StoreDown` when the store does not answer."""

    async def ping(self) -> None: ...
    async def close(self) -> None: ...
    async def put_conversation(self, conversation: Conversation) -> None: ...
    async def conversation(self, user_id: str, conversation_id: str) -> Conversation | None: ...
    async def conversations(self, user_id: str, limit: int) -> list[Conversation]: ...
    async def delete_conversation(self, user_id: str, conversation_id: str) -> bool: ...
    async def add_message(self, message: StoredMessage) -> None: ...
    async def message(self, user_id: str, message_id: str) -> StoredMessage | None: ...
    async def messages(self, user_id: str, conversation_id: str) -> list[StoredMessage]: ...
    async def put_feedback(self, feedback: Feedback) -> None: ...
    async def feedback(self, user_id: str, message_ids: list[str]) -> list[Feedback]: ...


@contextmanager
def _answering() -> Iterator[None]:
    """Turns the driver's errors into `StoreDown`."""
    try:
        yield
    except PyMongoError as error:
        reason = str(error).partition(" (configured timeouts")[0][:200]  # the driver adds its whole topology
        raise StoreDown(f"the document store does not answer: {reason}") from error


def _fields(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key != "_id"}


class MongoStore:
    """`DocumentStore` over pymongo: MongoDB, or anything that speaks its wire protocol."""

    def __init__(self, url: str) -> None:
        self._client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
            url,
            tz_aware=True,
            serverSelectionTimeoutMS=TIMEOUT_MS,
            connectTimeoutMS=TIMEOUT_MS,
            socketTimeoutMS=TIMEOUT_MS,
            retryWrites=False,
        )
        database = self._client[DATABASE]
        self._conversations = database["conversations"]
        self._messages = database["messages"]
        self._feedback = database["user_feedback"]

    async def prepare(self) -> None:
        """Create the indexes. Single fields only: the embedded store takes no compound index for equality."""
        with _answering():
            await self._conversations.create_index("conversation_id", unique=True)
            await self._conversations.create_index("user_id")
            await self._messages.create_index("message_id", unique=True)
            await self._messages.create_index("conversation_id")
            await self._feedback.create_index("feedback_id", unique=True)
            await self._feedback.create_index("message_id")

    async def ping(self) -> None:
        with _answering():
            await self._client.admin.command("ping")

    async def close(self) -> None:
        await self._client.close()

    async def put_conversation(self, conversation: Conversation) -> None:
        # Replaced as a whole: the embedded store turns the dates of a $set into strings.
        owned = {"conversation_id": conversation.conversation_id, "user_id": conversation.user_id}
        with _answering():
            await self._conversations.replace_one(owned, asdict(conversation), upsert=True)

    async def conversation(self, user_id: str, conversation_id: str) -> Conversation | None:
        with _answering():
            found = await self._conversations.find_one({"conversation_id": conversation_id, "user_id": user_id})
        return Conversation(**_fields(found)) if found else None

    async def conversations(self, user_id: str, limit: int) -> list[Conversation]:
        with _answering():
            found = self._conversations.find({"user_id": user_id}).sort("last_updated", -1).limit(limit)
            return [Conversation(**_fields(document)) async for document in found]

    async def delete_conversation(self, user_id: str, conversation_id: str) -> bool:
        owned = {"conversation_id": conversation_id, "user_id": user_id}
        with _answering():
            answers = [document["message_id"] async for document in self._messages.find(owned)]
            await self._feedback.delete_many({"message_id": {"$in": answers}})
            await self._messages.delete_many(owned)
            return (await self._conversations.delete_one(owned)).deleted_count > 0

    async def add_message(self, message: StoredMessage) -> None:
        with _answering():
            await self._messages.insert_one(asdict(message))

    async def message(self, user_id: str, message_id: str) -> StoredMessage | None:
        with _answering():
            found = await self._messages.find_one({"message_id": message_id, "user_id": user_id})
        return StoredMessage(**_fields(found)) if found else None

    async def messages(self, user_id: str, conversation_id: str) -> list[StoredMessage]:
        with _answering():
            found = self._messages.find({"conversation_id": conversation_id, "user_id": user_id})
            stored = [StoredMessage(**_fields(document)) async for document in found]
        return sorted(stored, key=lambda message: (message.position, message.timestamp))

    async def put_feedback(self, feedback: Feedback) -> None:
        with _answering():
            await self._feedback.replace_one({"feedback_id": feedback.feedback_id}, asdict(feedback), upsert=True)

    async def feedback(self, user_id: str, message_ids: list[str]) -> list[Feedback]:
        with _answering():
            found = self._feedback.find({"message_id": {"$in": message_ids}, "user_id": user_id})
            return [Feedback(**_fields(document)) async for document in found]

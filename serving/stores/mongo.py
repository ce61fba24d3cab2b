"""`DocumentStore` over pymongo: MongoDB, or anything that speaks its wire protocol."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import PyMongoError

from serving.stores.documents import (
    REPLACED,
    Conversation,
    Counts,
    Feedback,
    ModelMetric,
    Page,
    Rating,
    RequestLog,
    StoredMessage,
)
from serving.stores.errors import StoreDown

DATABASE = "colloquy"
TIMEOUT_MS = 3000
LOGS_KEPT_S = 90 * 24 * 3600


@contextmanager
def answering() -> Iterator[None]:
    """Turns the driver's errors into `StoreDown`."""
    try:
        yield
    except PyMongoError as error:
        reason = str(error).partition(" (configured timeouts")[0][:200]  # the driver adds its whole topology
        raise StoreDown(f"the document store does not answer: {reason}") from error


def _fields(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key != "_id"}


async def _conversation_ids(collection: AsyncCollection[dict[str, Any]], wanted: dict[str, Any]) -> list[str]:
    """Not by `distinct`: the embedded store takes no notice of its filter."""
    found = collection.find(wanted, {"conversation_id": 1})
    return sorted({document["conversation_id"] async for document in found})


class MongoStore:
    """Conversations, messages and feedback of all users, each collection with an index on the user to shard by."""

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
        self._logs = {RequestLog: database["request_logs"], ModelMetric: database["model_metrics"]}

    async def prepare(self) -> None:
        """Create the indexes. Single fields only: the embedded store takes no compound index for equality."""
        with answering():
            await self._conversations.create_index("conversation_id", unique=True)
            await self._conversations.create_index("user_id")
            await self._messages.create_index("message_id", unique=True)
            await self._messages.create_index("conversation_id")
            await self._messages.create_index("user_id")
            await self._feedback.create_index("feedback_id", unique=True)
            await self._feedback.create_index("message_id")
            await self._feedback.create_index("user_id")
            await self._logs[RequestLog].create_index("user_id")
            for collection in self._logs.values():
                await collection.create_index("timestamp", expireAfterSeconds=LOGS_KEPT_S)

    async def ping(self) -> None:
        with answering():
            await self._client.admin.command("ping")

    async def close(self) -> None:
        await self._client.close()

    async def put_conversation(self, conversation: Conversation) -> None:
        # Replaced as a whole: the embedded store turns the dates of a $set into strings.
        owned = {"conversation_id": conversation.conversation_id, "user_id": conversation.user_id}
        with answering():
            await self._conversations.replace_one(owned, asdict(conversation), upsert=True)

    async def change_conversation(self, conversation: Conversation) -> bool:
        owned = {"conversation_id": conversation.conversation_id, "user_id": conversation.user_id}
        with answering():
            return (await self._conversations.replace_one(owned, asdict(conversation))).matched_count > 0

    async def conversation(self, user_id: str, conversation_id: str) -> Conversation | None:
        with answering():
            found = await self._conversations.find_one({"conversation_id": conversation_id, "user_id": user_id})
        return Conversation(**_fields(found)) if found else None

    async def conversations(self, user_id: str, page: Page) -> list[Conversation]:
        conditions: list[dict[str, Any]] = [{"user_id": user_id}]
        with answering():
            if page.search:
                text = {"$regex": re.escape(page.search), "$options": "i"}
                said = await _conversation_ids(self._messages, {"user_id": user_id, "content": text})
                conditions.append({"$or": [{"title": text}, {"conversation_id": {"$in": said}}]})
            if page.after:
                at, identifier = page.after
                same = {"last_updated": at, "conversation_id": {"$lt": identifier}}
                conditions.append({"$or": [{"last_updated": {"$lt": at}}, same]})
            order = [("last_updated", -1), ("conversation_id", -1)]
            found = self._conversations.find({"$and": conditions}).sort(order).limit(page.limit)
            return [Conversation(**_fields(document)) async for document in found]

    async def delete_conversation(self, user_id: str, conversation_id: str) -> bool:
        owned = {"conversation_id": conversation_id, "user_id": user_id}
        with answering():
            answers = [document["message_id"] async for document in self._messages.find(owned)]
            await self._feedback.delete_many({"message_id": {"$in": answers}})
            await self._messages.delete_many(owned)
            return (await self._conversations.delete_one(owned)).deleted_count > 0

    async def put_message(self, message: StoredMessage) -> None:
        owned = {"message_id": message.message_id, "user_id": message.user_id}
        with answering():
            await self._messages.replace_one(owned, asdict(message), upsert=True)

    async def message(self, user_id: str, message_id: str) -> StoredMessage | None:
        with answering():
            found = await self._messages.find_one({"message_id": message_id, "user_id": user_id})
        return StoredMessage(**_fields(found)) if found else None

    async def messages(self, user_id: str, conversation_id: str) -> list[StoredMessage]:
        with answering():
            found = self._messages.find({"conversation_id": conversation_id, "user_id": user_id})
            stored = [StoredMessage(**_fields(document)) async for document in found]
        shown = [message for message in stored if REPLACED not in message.metadata]
        return sorted(shown, key=lambda message: (message.position, message.timestamp))

    async def put_feedback(self, feedback: Feedback) -> None:
        with answering():
            await self._feedback.replace_one({"feedback_id": feedback.feedback_id}, asdict(feedback), upsert=True)

    async def feedback(self, user_id: str, message_ids: list[str]) -> list[Feedback]:
        with answering():
            found = self._feedback.find({"message_id": {"$in": message_ids}, "user_id": user_id})
            return [Feedback(**_fields(document)) async for document in found]

    async def adopt(self, visitor_id: str, user_id: str) -> None:
        # Each document is replaced as a whole, for the same reason as in put_conversation.
        with answering():
            for collection in (self._conversations, self._messages, self._feedback):
                async for document in collection.find({"user_id": visitor_id}):
                    await collection.replace_one({"_id": document["_id"]}, document | {"user_id": user_id})

    async def delete_user(self, user_id: str) -> list[str]:
        owned = {"user_id": user_id}
        with answering():
            conversations = await _conversation_ids(self._conversations, owned)
            for collection in (self._feedback, self._messages, self._conversations, self._logs[RequestLog]):
                await collection.delete_many(owned)
        return conversations

    async def flagged(self, limit: int) -> list[StoredMessage]:
        with answering():
            found = self._messages.find({"metadata.moderated": {"$exists": True}}).sort("timestamp", -1).limit(limit)
            return [StoredMessage(**_fields(document)) async for document in found]

    async def judged(self, rating: Rating, limit: int) -> list[Feedback]:
        with answering():
            found = self._feedback.find({"rating": rating}).sort("timestamp", -1).limit(limit)
            return [Feedback(**_fields(document)) async for document in found]

    async def judgement(self, feedback_id: str) -> Feedback | None:
        with answering():
            found = await self._feedback.find_one({"feedback_id": feedback_id})
        return Feedback(**_fields(found)) if found else None

    async def answer(self, message_id: str) -> StoredMessage | None:
        with answering():
            found = await self._messages.find_one({"message_id": message_id, "role": "assistant"})
        return StoredMessage(**_fields(found)) if found else None

    async def begun_since(self, at: datetime) -> list[Conversation]:
        with answering():
            found = self._conversations.find({"created_at": {"$gte": at}})
            return [Conversation(**_fields(document)) async for document in found]

    async def requests_of(self, conversation_id: str) -> list[RequestLog]:
        with answering():
            found = self._logs[RequestLog].find({"conversation_id": conversation_id})
            return [RequestLog(**_fields(document)) async for document in found]

    async def counts(self) -> Counts:
        with answering():
            return Counts(
                await self._conversations.count_documents({}),
                await self._messages.count_documents({}),
                await self._feedback.count_documents({"rating": "up"}),
                await self._feedback.count_documents({"rating": "down"}),
            )

    async def log(self, records: Sequence[RequestLog | ModelMetric]) -> None:
        with answering():
            for kind, collection in self._logs.items():
                if rows := [asdict(record) for record in records if isinstance(record, kind)]:
                    await collection.insert_many(rows, ordered=False)

"""Stand-ins for model, classifier and store, and the real application over them."""

import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime

import httpx
from argon2 import PasswordHasher
from fastapi import FastAPI

from pipelines.core.sections.serving import Access, Chat
from pipelines.model.engine import Generation, Sampling
from serving.app import create_app
from serving.assistant import Assistant
from serving.backend import Product
from serving.moderation import Moderation, Policy, Rule
from serving.passwords import Passwords
from serving.settings import Release
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
from serving.stores.open import Stores
from tests.serving import servers

ACCESS = Access(
    visitors=True,
    requests_per_minute=100_000,
    address_requests_per_minute=100_000,
    sign_ins_per_hour=100_000,
    tokens_per_day=None,
)
CHAT = Chat(
    dtype="float32",
    system_prompt="You are a helpful assistant.",
    max_new_tokens=64,
    temperature=0.0,
    top_p=1.0,
    context_tokens=2000,
    max_concurrent=2,
    queue=2,
    moderation_threshold=0.5,
    access=ACCESS,
    smoke_question="Hello?",
    smoke_expects=None,
)


@dataclass
class FakeEngine:
    """Says `answer` piece by piece; a token is a character of the rendered chat, and `gate` makes it wait."""

    answer: Sequence[str] = ("Paris", " is", " it", ".")
    pause_s: float = 0.0
    gate: threading.Event | None = None
    seen: list[tuple[str, Sampling]] = field(default_factory=list)
    running: int = 0

    def render(self, chat: list[dict[str, str]]) -> list[int]:
        text = "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in chat)
        return [ord(char) for char in text]

    def tokenizer(self, text: str, *, add_special_tokens: bool, split_special_tokens: bool) -> dict[str, list[int]]:
        assert split_special_tokens and not add_special_tokens
        return {"input_ids": [ord(char) for char in text]}

    def stream(self, prompt: Sequence[int], sampling: Sampling, cancelled: Callable[[], bool]) -> Iterator[str]:
        self.seen.append(("".join(map(chr, prompt)), sampling))
        self.running += 1
        said: list[str] = []
        try:
            for piece in self.answer[: sampling.max_new_tokens]:
                while self.gate is not None and not self.gate.wait(0.01):
                    if cancelled():
                        return None
                if cancelled():
                    return None
                if self.pause_s:
                    time.sleep(self.pause_s)
                said.append(piece)
                yield piece
        finally:
            self.running -= 1
        complete = len(said) == len(self.answer)
        reason = "stop" if complete else "length"
        return Generation("".join(said), tuple(range(len(said))), (0.0,) * len(said), reason, len(prompt))


class WordClassifier:
    """Finds planted words: `hurtful` is hate, `sad` self-harm. Raises when told to."""

    version = "words"
    categories = ("self_harm", "hate")

    def __init__(self) -> None:
        self.broken = False
        self.seen: list[str] = []

    def score(self, texts: list[str]) -> list[dict[str, float]]:
        if self.broken:
            raise RuntimeError("no classifier")
        self.seen += texts
        return [{"hate": float("hurtful" in text), "self_harm": float("sad" in text)} for text in texts]


POLICY = Policy(
    rules=(
        Rule("self_harm", 0.5, ("system", "input", "output"), "Please talk to someone."),
        Rule("hate", 0.5, ("input", "output"), "Let us stay kind."),
    ),
    output_threshold=0.5,
    hold_tokens=24,
    check_tokens=8,
    windows=(8,),
    longest=400,
    hidden_letters=12,
)


class MemoryStore:
    """`DocumentStore` in dictionaries. `down` makes every call fail as a dead server would."""

    def __init__(self) -> None:
        self.down = False
        self.logged: list[RequestLog | ModelMetric] = []
        self._conversations: dict[str, Conversation] = {}
        self._messages: dict[str, StoredMessage] = {}
        self._feedback: dict[str, Feedback] = {}

    def _up(self) -> None:
        if self.down:
            raise StoreDown("the document store does not answer: test")

    async def prepare(self) -> None:
        self._up()

    async def ping(self) -> None:
        self._up()

    async def close(self) -> None: ...

    async def put_conversation(self, conversation: Conversation) -> None:
        self._up()
        self._conversations[conversation.conversation_id] = conversation

    async def change_conversation(self, conversation: Conversation) -> bool:
        there = await self.conversation(conversation.user_id, conversation.conversation_id) is not None
        if there:
            await self.put_conversation(conversation)
        return there

    async def conversation(self, user_id: str, conversation_id: str) -> Conversation | None:
        self._up()
        found = self._conversations.get(conversation_id)
        return found if found and found.user_id == user_id else None

    async def conversations(self, user_id: str, page: Page) -> list[Conversation]:
        self._up()
        wanted = page.search.lower()
        said = {
            m.conversation_id for m in self._messages.values() if m.user_id == user_id and wanted in m.content.lower()
        }
        own = [
            each
            for each in self._conversations.values()
            if each.user_id == user_id and (wanted in each.title.lower() or each.conversation_id in said)
        ]
        ordered = sorted(own, key=lambda each: (each.last_updated, each.conversation_id), reverse=True)
        return [e for e in ordered if not page.after or (e.last_updated, e.conversation_id) < page.after][: page.limit]

    async def delete_conversation(self, user_id: str, conversation_id: str) -> bool:
        if await self.conversation(user_id, conversation_id) is None:
            return False
        del self._conversations[conversation_id]
        gone = {key for key, each in self._messages.items() if each.conversation_id == conversation_id}
        self._messages = {key: each for key, each in self._messages.items() if key not in gone}
        self._feedback = {key: each for key, each in self._feedback.items() if each.message_id not in gone}
        return True

    async def put_message(self, message: StoredMessage) -> None:
        self._up()
        self._messages[message.message_id] = message

    async def message(self, user_id: str, message_id: str) -> StoredMessage | None:
        self._up()
        found = self._messages.get(message_id)
        return found if found and found.user_id == user_id else None

    async def messages(self, user_id: str, conversation_id: str) -> list[StoredMessage]:
        self._up()
        own = [m for m in self._messages.values() if m.conversation_id == conversation_id and m.user_id == user_id]
        shown = [message for message in own if REPLACED not in message.metadata]
        return sorted(shown, key=lambda message: (message.position, message.timestamp))

    async def put_feedback(self, feedback: Feedback) -> None:
        self._up()
        self._feedback[feedback.feedback_id] = feedback

    async def feedback(self, user_id: str, message_ids: list[str]) -> list[Feedback]:
        self._up()
        return [f for f in self._feedback.values() if f.message_id in message_ids and f.user_id == user_id]

    async def adopt(self, visitor_id: str, user_id: str) -> None:
        self._up()
        for kept in (self._conversations, self._messages, self._feedback):
            for key, each in kept.items():
                if each.user_id == visitor_id:
                    kept[key] = replace(each, user_id=user_id)  # type: ignore[type-var]

    async def delete_user(self, user_id: str) -> list[str]:
        self._up()
        gone = [key for key, each in self._conversations.items() if each.user_id == user_id]
        for kept in (self._conversations, self._messages, self._feedback):
            for key in [key for key, each in kept.items() if each.user_id == user_id]:
                del kept[key]  # type: ignore[attr-defined]
        self.logged = [each for each in self.logged if getattr(each, "user_id", None) != user_id]
        return gone

    async def flagged(self, limit: int) -> list[StoredMessage]:
        self._up()
        found = [message for message in self._messages.values() if "moderated" in message.metadata]
        return sorted(found, key=lambda message: message.timestamp, reverse=True)[:limit]

    async def judged(self, rating: Rating, limit: int) -> list[Feedback]:
        self._up()
        found = [feedback for feedback in self._feedback.values() if feedback.rating == rating]
        return sorted(found, key=lambda feedback: feedback.timestamp, reverse=True)[:limit]

    async def judgement(self, feedback_id: str) -> Feedback | None:
        self._up()
        return self._feedback.get(feedback_id)

    async def answer(self, message_id: str) -> StoredMessage | None:
        self._up()
        found = self._messages.get(message_id)
        return found if found and found.role == "assistant" else None

    async def begun_since(self, at: datetime) -> list[Conversation]:
        self._up()
        return [each for each in self._conversations.values() if each.created_at >= at]

    async def requests_of(self, conversation_id: str) -> list[RequestLog]:
        self._up()
        logs = [each for each in self.logged if isinstance(each, RequestLog)]
        return [each for each in logs if each.conversation_id == conversation_id]

    async def counts(self) -> Counts:
        self._up()
        ratings = [feedback.rating for feedback in self._feedback.values()]
        return Counts(len(self._conversations), len(self._messages), ratings.count("up"), ratings.count("down"))

    async def log(self, records: Sequence[RequestLog | ModelMetric]) -> None:
        self._up()
        self.logged += records


def release(chat: Chat = CHAT) -> Release:
    return Release(
        bento="colloquy:v7-1a2b3c4d",
        model="colloquy:v7-1a2b3c4d",
        version=7,
        profile="tiny",
        git_commit="c" * 40,
        lock_hash="1a2b3c4d" * 8,
        simulated_labels=True,
        verdict="pass (demo rules)",
        promoted_by=None,
        promoted_reason=None,
        chat=chat,
    )


CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)  # for tests only


@dataclass
class Parts:
    """The fakes behind one application, to steer it and to look at what it did."""

    engine: FakeEngine = field(default_factory=FakeEngine)
    classifier: WordClassifier = field(default_factory=WordClassifier)
    store: MemoryStore = field(default_factory=MemoryStore)
    chat: Chat = CHAT
    policy: Policy = POLICY
    products: list[Product] = field(default_factory=list)
    sql_url: str = field(default_factory=servers.fresh_sqlite_url)

    def app(self) -> FastAPI:
        async def open_product(released: Release) -> Product:
            assistant = Assistant(self.engine, Moderation(self.classifier, self.policy), released.chat)  # type: ignore[arg-type]
            stores = Stores.over(self.store, self.sql_url, servers.valkey_url())
            await stores.accounts.prepare()
            self.products.append(Product(assistant, stores, Passwords(CHEAP)))
            return self.products[-1]

        return create_app(lambda: release(self.chat), open_product)


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the started application, in this event loop."""
    async with app.router.lifespan_context(app):
        await app.state.backend._opening
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield client

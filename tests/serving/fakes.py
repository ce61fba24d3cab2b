"""Stand-ins for model, classifier and store, and the real application over them."""

import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
from fastapi import FastAPI

from pipelines.core.config import Chat
from pipelines.model.engine import Generation, Sampling
from serving.app import create_app
from serving.assistant import Assistant
from serving.backend import Product
from serving.moderation import Moderation, Policy, Rule
from serving.settings import Release
from serving.stores.documents import Conversation, Feedback, StoredMessage, StoreDown

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
    hold_tokens=24,
    check_tokens=8,
    windows=(40,),
    longest=400,
)


class MemoryStore:
    """`DocumentStore` in dictionaries. `down` makes every call fail as a dead server would."""

    def __init__(self) -> None:
        self.down = False
        self._conversations: dict[str, Conversation] = {}
        self._messages: dict[str, StoredMessage] = {}
        self._feedback: dict[str, Feedback] = {}

    def _up(self) -> None:
        if self.down:
            raise StoreDown("the document store does not answer: test")

    async def ping(self) -> None:
        self._up()

    async def close(self) -> None: ...

    async def put_conversation(self, conversation: Conversation) -> None:
        self._up()
        self._conversations[conversation.conversation_id] = conversation

    async def conversation(self, user_id: str, conversation_id: str) -> Conversation | None:
        self._up()
        found = self._conversations.get(conversation_id)
        return found if found and found.user_id == user_id else None

    async def conversations(self, user_id: str, limit: int) -> list[Conversation]:
        self._up()
        own = [each for each in self._conversations.values() if each.user_id == user_id]
        return sorted(own, key=lambda each: each.last_updated, reverse=True)[:limit]

    async def delete_conversation(self, user_id: str, conversation_id: str) -> bool:
        if await self.conversation(user_id, conversation_id) is None:
            return False
        del self._conversations[conversation_id]
        gone = {key for key, each in self._messages.items() if each.conversation_id == conversation_id}
        self._messages = {key: each for key, each in self._messages.items() if key not in gone}
        self._feedback = {key: each for key, each in self._feedback.items() if each.message_id not in gone}
        return True

    async def add_message(self, message: StoredMessage) -> None:
        self._up()
        self._messages[message.message_id] = message

    async def message(self, user_id: str, message_id: str) -> StoredMessage | None:
        self._up()
        found = self._messages.get(message_id)
        return found if found and found.user_id == user_id else None

    async def messages(self, user_id: str, conversation_id: str) -> list[StoredMessage]:
        self._up()
        own = [m for m in self._messages.values() if m.conversation_id == conversation_id and m.user_id == user_id]
        return sorted(own, key=lambda message: (message.position, message.timestamp))

    async def put_feedback(self, feedback: Feedback) -> None:
        self._up()
        self._feedback[feedback.feedback_id] = feedback

    async def feedback(self, user_id: str, message_ids: list[str]) -> list[Feedback]:
        self._up()
        return [f for f in self._feedback.values() if f.message_id in message_ids and f.user_id == user_id]


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


@dataclass
class Parts:
    """The fakes behind one application, to steer it and to look at what it did."""

    engine: FakeEngine = field(default_factory=FakeEngine)
    classifier: WordClassifier = field(default_factory=WordClassifier)
    store: MemoryStore = field(default_factory=MemoryStore)
    chat: Chat = CHAT
    policy: Policy = POLICY
    products: list[Product] = field(default_factory=list)

    def app(self) -> FastAPI:
        async def open_product(released: Release) -> Product:
            assistant = Assistant(self.engine, Moderation(self.classifier, self.policy), released.chat)  # type: ignore[arg-type]
            self.products.append(Product(assistant, self.store))
            return self.products[-1]

        return create_app(lambda: release(self.chat), open_product)


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the started application, in this event loop."""
    async with app.router.lifespan_context(app):
        await app.state.backend._opening
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client

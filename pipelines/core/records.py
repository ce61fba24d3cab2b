"""The records that cross stage borders: documents, conversations, sampled responses, annotations, preferences.

Each is a frozen dataclass with `from_row` and `to_row`; rows are what `core/jsonl.py` reads and writes.
"""

import hashlib
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from pipelines.core.errors import BadInput
from pipelines.core.jsonl import Row, encode

Role = Literal["system", "user", "assistant"]


def content_id(value: object) -> str:
    """The first 16 hex digits of SHA-256 over the canonical JSON of `value`."""
    return hashlib.sha256(encode(value)).hexdigest()[:16]


def _take(cls: type, row: Row) -> dict[str, Any]:
    names = set(cls.__dataclass_fields__)  # type: ignore[attr-defined]
    if unknown := sorted(set(row) - names):
        raise BadInput(f"{cls.__name__} row has unknown keys {unknown}; valid: {sorted(names)}")
    return row


@dataclass(frozen=True, slots=True)
class Document:
    """One text of the pretraining corpus with where it came from."""

    id: str
    text: str
    source: str
    license: str
    metadata: dict[str, Any] = field(default_factory=dict)  # url, path, date, title …

    @classmethod
    def from_row(cls, row: Row) -> Self:
        return cls(**_take(cls, row))

    def to_row(self) -> Row:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """A demonstration (ends with an assistant turn) or a prompt (ends with a user turn)."""

    id: str
    messages: tuple[Message, ...]
    category: str
    source: str
    license: str

    @classmethod
    def from_row(cls, row: Row) -> Self:
        taken = dict(_take(cls, row))
        taken["messages"] = tuple(Message(**message) for message in taken["messages"])
        return cls(**taken)

    def to_row(self) -> Row:
        return asdict(self) | {"messages": self.chat}

    @property
    def chat(self) -> list[dict[str, str]]:
        """The messages as the plain dicts that chat templates and APIs take."""
        return [{"role": message.role, "content": message.content} for message in self.messages]


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled response; `id` is m0, m1, … within its task."""

    id: str
    text: str
    temperature: float
    finish_reason: Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class LabelTask:
    """One prompt with the 4–6 responses that people rank. `id` hashes prompt and completions."""

    id: str
    prompt: Conversation
    completions: tuple[Completion, ...]
    scores: dict[str, float] = field(default_factory=dict)  # of an earlier round's reward model, by completion id
    asked: bool = True  # of people; the others are ranked by their scores

    @classmethod
    def from_row(cls, row: Row) -> Self:
        taken = dict(_take(cls, row))
        taken["prompt"] = Conversation.from_row(taken["prompt"])
        taken["completions"] = tuple(Completion(**completion) for completion in taken["completions"])
        return cls(**taken)

    def to_row(self) -> Row:
        return asdict(self) | {"prompt": self.prompt.to_row(), "completions": [asdict(c) for c in self.completions]}


@dataclass(frozen=True, slots=True)
class Annotation:
    """One labeler's judgement of one task, canonical: no ids or times that change on a second pull."""

    task_id: str
    annotation_id: int
    labeler: str  # pseudonym, stable within a Label Studio instance
    simulated: bool
    ranking: tuple[tuple[str, ...], ...]  # completion ids, best group first; a group is a tie
    shown_order: tuple[str, ...]
    flags: tuple[str, ...]  # about the whole task: none_acceptable, harmful, cannot_judge, as_shown, skipped
    response_flags: dict[str, tuple[str, ...]]  # completion id -> untruthful, harmful, off_topic
    comment: str
    lead_time_s: float  # from opening the task to submitting it
    guideline_version: str

    @classmethod
    def from_row(cls, row: Row) -> Self:
        taken = dict(_take(cls, row))
        taken["ranking"] = tuple(tuple(group) for group in taken["ranking"])
        taken["shown_order"] = tuple(taken["shown_order"])
        taken["flags"] = tuple(taken["flags"])
        taken["response_flags"] = {key: tuple(value) for key, value in taken["response_flags"].items()}
        return cls(**taken)

    def to_row(self) -> Row:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class WrittenAnswer:
    """A person's answer to a prompt and what a second person said of it; canonical, as Annotation is."""

    annotation_id: int
    prompt: Conversation
    answer: str
    attempt: int  # 1, and one more each time that an answer to the prompt was returned
    verdict: Literal["open", "accepted", "returned"]
    author: str  # pseudonym, stable within a Label Studio instance
    checker: str  # likewise; empty while the verdict is open
    reason: str  # of the checker
    lead_time_s: float
    guideline_version: str

    @classmethod
    def from_row(cls, row: Row) -> Self:
        taken = dict(_take(cls, row))
        taken["prompt"] = Conversation.from_row(taken["prompt"])
        return cls(**taken)

    def to_row(self) -> Row:
        return asdict(self) | {"prompt": self.prompt.to_row()}

    @property
    def demonstration(self) -> Conversation:
        """The conversation that ends with the answer."""
        messages = (*self.prompt.messages, Message("assistant", self.answer))
        chat = [asdict(message) for message in messages]
        return Conversation(content_id(chat), messages, self.prompt.category, "people", self.prompt.license)


@dataclass(frozen=True, slots=True)
class Preference:
    """One pair from a ranking: `chosen` was put above `rejected` for the same prompt.

    `weight` is 1 / (pairs of its prompt), so that every prompt counts alike (InstructGPT, section 3.5).
    """

    id: str
    prompt: Conversation
    chosen: str
    rejected: str
    weight: float
    simulated: bool
    by_reward_model: bool = False  # nobody ranked it
    chosen_stopped: bool = True  # the model ended it by itself; False where the token limit did
    rejected_stopped: bool = True

    @classmethod
    def from_row(cls, row: Row) -> Self:
        taken = dict(_take(cls, row))
        taken["prompt"] = Conversation.from_row(taken["prompt"])
        return cls(**taken)

    def to_row(self) -> Row:
        return asdict(self) | {"prompt": self.prompt.to_row()}

"""Answers on the wire: OpenAI's completion and chunk shapes, server-sent events, and noticing that a reader left."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from starlette.responses import StreamingResponse

from serving.assistant import Answer, Delta, End
from serving.errors import ApiError
from serving.settings import Release

SECONDS_BETWEEN_LOOKS = 0.2

Events = AsyncIterator[Delta | End]
_watchers: set[asyncio.Task[None]] = set()  # asyncio keeps only weak references to tasks


@dataclass(frozen=True, slots=True)
class Envelope:
    """What all chunks of one answer have in common; `extra` is this product's own part of them."""

    release: Release
    extra: dict[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))
    text: bool = False  # the shapes of /v1/completions instead of those of /v1/chat/completions

    def _wrap(self, kind: str, choices: list[dict[str, Any]], usage: dict[str, Any] | None) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.release.model_id,
            "system_fingerprint": self.release.bento,
            "choices": choices,
            "usage": usage,
        }

    def chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
        said = {"text": delta.get("content", "")} if self.text else {"delta": delta}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish_reason}
        return self._wrap(self._chunk_kind, [choice], None)

    def last_chunk(self, end: End) -> dict[str, Any]:
        return self.chunk({}, finish_reason(end)) | {"colloquy": self.about(end)}

    def usage_chunk(self, end: End) -> dict[str, Any]:
        return self._wrap(self._chunk_kind, [], usage(end))

    def completion(self, text: str, end: End) -> dict[str, Any]:
        message = {"role": "assistant", "content": text, "refusal": None}
        said = {"text": text} if self.text else {"message": message}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish_reason(end)}
        kind = "text_completion" if self.text else "chat.completion"
        return self._wrap(kind, [choice], usage(end)) | {"colloquy": self.about(end)}

    @property
    def _chunk_kind(self) -> str:
        return "text_completion" if self.text else "chat.completion.chunk"

    def about(self, end: End) -> dict[str, Any]:
        """Ids, moderation and left-out messages of an answer, beyond OpenAI's fields."""
        moderated = {"place": end.blocked.place, "category": end.blocked.category} if end.blocked else None
        return self.extra | {"moderated": moderated, "dropped_messages": end.dropped}


def finish_reason(end: End) -> str:
    """The reason in OpenAI's words; a cancelled answer has no reader left."""
    return "stop" if end.finish_reason == "cancelled" else end.finish_reason


def usage(end: End) -> dict[str, int]:
    """Token counts as OpenAI names them."""
    return {
        "prompt_tokens": end.prompt_tokens,
        "completion_tokens": end.completion_tokens,
        "total_tokens": end.prompt_tokens + end.completion_tokens,
    }


def frame(value: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


async def chunks(events: Events, envelope: Envelope, include_usage: bool) -> AsyncIterator[bytes]:
    """The frames of a streamed answer. A failure on the way becomes an error frame and ends the stream."""
    yield frame(envelope.chunk({"role": "assistant", "content": ""}) | {"colloquy": envelope.extra})
    try:
        async with aclosing(events) as closing:  # type: ignore[type-var]
            async for event in closing:
                if isinstance(event, Delta):
                    yield frame(envelope.chunk({"content": event.text}))
                    continue
                yield frame(envelope.last_chunk(event))
                if include_usage:
                    yield frame(envelope.usage_chunk(event))
    except ApiError as error:
        yield frame(error.body())
        return
    yield b"data: [DONE]\n\n"


def event_stream(frames: AsyncIterator[bytes]) -> StreamingResponse:
    """A response that proxies pass on without waiting for its end."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(frames, media_type="text/event-stream", headers=headers)


def cancel_when_gone(request: Request, answer: Answer) -> None:
    """Give the slot of `answer` back soon after the reader of `request` has left, whatever the answer waits for."""

    async def watch() -> None:
        while not answer.done:
            if await request.is_disconnected():
                answer.cancel()
                return
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)

    task = asyncio.create_task(watch())
    _watchers.add(task)
    task.add_done_callback(_watchers.discard)

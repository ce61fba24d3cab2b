"""One answer from end to end: moderate the question, fit the conversation, generate, moderate while streaming."""

import logging
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import anyio.to_thread

from pipelines.core.records import Message
from pipelines.core.sections.serving import Chat
from serving.conversation import Fitted, fit, require_question, with_system
from serving.errors import ApiError
from serving.generation import Busy, GenerationQueue, Running
from serving.moderation import Blocked, Decision, Moderation, ModerationDown, Place

if TYPE_CHECKING:
    from pipelines.model.engine import Engine, Sampling

log = logging.getLogger("colloquy")

FinishReason = Literal["stop", "length", "content_filter", "cancelled"]


@dataclass(frozen=True, slots=True)
class Options:
    """What a caller may choose for one answer; None takes the release's setting."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


class Delta(NamedTuple):
    """Text that passed moderation."""

    text: str


class End(NamedTuple):
    """How an answer ended."""

    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    blocked: Decision | None
    dropped: int  # messages of the conversation that the prompt left out


class Answer:
    """An admitted answer. `events` yields `Delta`s and one `End`; `cancel` gives its slot back."""

    def __init__(
        self,
        moderation: Moderation,
        fitted: Fitted | None = None,
        running: Running | None = None,
        blocked: Decision | None = None,
    ) -> None:
        self._moderation = moderation
        self._fitted = fitted
        self._running = running
        self._blocked = blocked

    def cancel(self) -> None:
        if self._running is not None:
            self._running.cancel()

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt; none when the question was blocked."""
        return len(self._fitted.prompt) if self._fitted else 0

    @property
    def done(self) -> bool:
        """Whether nothing is left to generate."""
        return self._running is None or self._running.done

    async def events(self) -> AsyncIterator[Delta | End]:
        """The answer as it may be shown.

        Raises:
            ApiError: engine or moderation failed; what was not checked was not yielded.
        """
        if self._running is None or self._fitted is None:
            assert self._blocked is not None
            yield Delta(self._blocked.template)
            yield End("content_filter", 0, 0, self._blocked, 0)
            return
        guard = self._moderation.guard()
        shown = cut_off = False
        pieces = 0
        blocked: Decision | None = None
        try:
            async for piece in self._running.pieces():
                pieces += 1
                if text := await guard.push(piece):
                    shown = True
                    yield Delta(text)
            cut_off = self._running.cancelled
            if not cut_off and (rest := await guard.finish()):
                yield Delta(rest)
        except Blocked as stop:
            blocked = stop.decision
        except ModerationDown as error:
            raise ApiError(
                503, "moderation failed, so the answer was stopped", code="moderation_unavailable"
            ) from error
        except Exception as error:
            log.exception("the engine failed")
            raise ApiError(500, "the model failed to answer; the server's log says why") from error
        finally:
            self._running.cancel()
        if blocked is not None:
            yield Delta(("\n\n" if shown else "") + blocked.template)
        result = self._running.result
        reason: FinishReason = result.finish_reason if result and not cut_off else "cancelled"
        tokens = len(result.token_ids) if result else pieces
        prompt, _, dropped = self._fitted
        yield End("content_filter" if blocked else reason, len(prompt), tokens, blocked, dropped)


class Assistant:
    """Answers conversations with one engine under one moderation policy."""

    def __init__(self, engine: "Engine", moderation: Moderation, chat: Chat) -> None:
        self.generations = GenerationQueue(engine, chat.max_concurrent, chat.queue)
        self.moderation = moderation
        self._engine = engine
        self._chat = chat

    async def prepare(self, messages: Sequence[Message], options: Options) -> Answer:
        """Check, fit and admit; everything that can be refused is refused here, before the first byte is sent.

        Raises:
            ApiError: the messages don't fit or make no sense, the queue is full, or moderation failed.
        """
        require_question(messages)
        allowed, blocked = await self._moderated(messages)
        if blocked is not None:
            return Answer(self.moderation, blocked=blocked)
        wanted = options.max_tokens or self._chat.max_new_tokens
        reserve = min(wanted, self._chat.max_new_tokens)
        complete = with_system(allowed, self._chat.system_prompt)
        context = self._chat.context_tokens
        return self._start(
            await anyio.to_thread.run_sync(fit, complete, self._engine.render, context, reserve), options
        )

    async def prepare_text(self, text: str, options: Options) -> Answer:
        """Check and admit the continuation of a bare text: no template, no system message, no special tokens.

        Raises:
            ApiError: as `prepare`; nothing of the text is dropped.
        """
        (blocked,) = await self._check([("input", text)])
        if blocked is not None:
            return Answer(self.moderation, blocked=blocked)
        prompt = await anyio.to_thread.run_sync(self._encode, text)
        room = self._chat.context_tokens - len(prompt)
        if room < 1:
            holds = f"the prompt has {len(prompt)} tokens; the context holds {self._chat.context_tokens}"
            raise ApiError(400, holds, "prompt", "context_length_exceeded")
        return self._start(Fitted(prompt, room, 0), options)

    def _start(self, fitted: Fitted, options: Options) -> Answer:
        wanted = min(options.max_tokens or self._chat.max_new_tokens, fitted.room)
        try:
            running = self.generations.start(fitted.prompt, self._sampling(options, wanted))
        except Busy as busy:
            raise ApiError(429, str(busy), code="queue_full", retry_after_s=busy.retry_after_s) from busy
        return Answer(self.moderation, fitted, running)

    def _encode(self, text: str) -> list[int]:
        encoded = self._engine.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return list(encoded["input_ids"])

    async def _check(self, texts: list[tuple[Place, str]]) -> list[Decision | None]:
        try:
            return await self.moderation.check(texts)
        except ModerationDown as error:
            raise ApiError(503, "moderation failed, so nothing is answered", code="moderation_unavailable") from error

    async def count_tokens(self, text: str) -> int:
        """Tokens of a person's turn, with what the template puts around it."""
        turn = [{"role": "user", "content": text}]
        return len(await anyio.to_thread.run_sync(self._engine.render, turn))

    async def _moderated(self, messages: Sequence[Message]) -> tuple[list[Message], Decision | None]:
        """The conversation without earlier turns that are blocked, and the decision on what must stay.

        What must stay are the newest turn and the caller's system messages; the release's own system prompt is
        not a caller's and is never judged.
        """
        judged = [index for index, message in enumerate(messages) if message.role != "assistant"]
        texts: list[tuple[Place, str]] = [
            ("system" if messages[index].role == "system" else "input", messages[index].content) for index in judged
        ]
        found = dict(zip(judged, await self._check(texts), strict=True))
        kept: list[Message] = []
        after_blocked = False
        for index, message in enumerate(messages):
            decision = found.get(index)
            if decision is not None and (message.role == "system" or index == len(messages) - 1):
                return kept, decision
            if message.role == "user":
                after_blocked = decision is not None
            if not after_blocked or message.role == "system":
                kept.append(message)
        return kept, None

    def _sampling(self, options: Options, max_new_tokens: int) -> "Sampling":
        from pipelines.model.engine import Sampling

        chat = self._chat
        return Sampling(
            max_new_tokens=max_new_tokens,
            temperature=chat.temperature if options.temperature is None else options.temperature,
            top_p=chat.top_p if options.top_p is None else options.top_p,
            seed=secrets.randbits(31) if options.seed is None else options.seed,
            stop=options.stop,
        )

    def close(self) -> None:
        self.generations.close()
        self.moderation.close()

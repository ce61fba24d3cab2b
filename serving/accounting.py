"""What answers cost: tokens by user, key and day, the daily quota, and one metric for each answer."""

import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

from serving.assistant import Answer, Delta, End, Options
from serving.backend import Backend, Product
from serving.errors import ApiError
from serving.identity import Caller
from serving.stores.accounts import DayUsage
from serving.stores.documents import ModelMetric, now
from serving.stores.errors import StoreDown

log = logging.getLogger("colloquy")

REGION_VARIABLE = "COLLOQUY_REGION"
CHARACTERS_A_TOKEN = 4  # an estimate, for an answer that its reader left before it was counted


async def require_quota(backend: Backend, product: Product, caller: Caller) -> None:
    """Fail when the caller has used up the day.

    Raises:
        ApiError: 429 with the time until midnight in UTC.
    """
    quota = backend.release.chat.access.tokens_per_day
    if quota is None:
        return
    at = datetime.now(UTC)
    used = await product.stores.accounts.usage(caller.user_id, at.date())
    if sum(each.prompt_tokens + each.completion_tokens for each in used) >= quota:
        midnight = datetime.combine(at.date() + timedelta(days=1), datetime.min.time(), UTC)
        wait_s = int((midnight - at).total_seconds()) + 1
        raise ApiError(429, f"the {quota} tokens of today are used", code="insufficient_quota", retry_after_s=wait_s)


async def counted(
    answer: Answer, backend: Backend, product: Product, caller: Caller, options: Options
) -> AsyncIterator[Delta | End]:
    """The events of `answer`; what it cost is written when it has ended, however that happened."""
    chat = backend.release.chat
    started, characters = time.monotonic(), 0
    end: End | None = None
    try:
        async with aclosing(answer.events()) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Delta):
                    characters += len(event.text)
                else:
                    end = event
                yield event
    finally:
        prompt_tokens = answer.prompt_tokens
        completion_tokens = end.completion_tokens if end else -(-characters // CHARACTERS_A_TOKEN)
        backend.telemetry.add(
            ModelMetric(
                timestamp=now(),
                model_id=backend.release.model_id,
                region=os.environ.get(REGION_VARIABLE, "local"),
                inference_time=time.monotonic() - started,
                tokens_processed=prompt_tokens + completion_tokens,
                prompt_tokens=prompt_tokens,
                completion_tokens=completion_tokens,
                temperature=chat.temperature if options.temperature is None else options.temperature,
                max_tokens=min(options.max_tokens or chat.max_new_tokens, chat.max_new_tokens),
                gpu_utilization=None,
            )
        )
        used = DayUsage(datetime.now(UTC).date(), caller.key_id, 1, prompt_tokens, completion_tokens)
        backend.later(_note_usage(product, caller, used))


async def _note_usage(product: Product, caller: Caller, used: DayUsage) -> None:
    try:
        await product.stores.accounts.add_usage(caller.user_id, used)
    except StoreDown as error:
        log.warning("the tokens of an answer were not noted: %s", error)

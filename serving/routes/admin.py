"""`/api/admin`: figures, flagged messages and feedback, for administrators.

Who is one is said on the server: `python -m serving.operations.users grant-admin EMAIL`.
"""

import asyncio
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import Field

from pipelines.core.errors import BadInput
from pipelines.core.lineage import tracking_address
from serving.backend import TheBackend, TheProduct
from serving.errors import ApiError
from serving.identity import administrator
from serving.operations.trace import Step, trace
from serving.schemas import Body, Id, example
from serving.stores.documents import Feedback

router = APIRouter(prefix="/api/admin", tags=["administration"], dependencies=[Depends(administrator)])

Limit = Annotated[int, Query(ge=1, le=200)]


class DayTotal(Body):
    day: date
    requests: int
    prompt_tokens: int
    completion_tokens: int


class Figures(Body):
    users: int
    conversations: int
    messages: int
    feedback_up: int
    feedback_down: int
    running: int
    waiting: int
    days: list[DayTotal]


class Flagged(Body):
    """An answer that moderation replaced or ended."""

    message_id: str
    conversation_id: str
    user_id: str
    timestamp: datetime
    category: str
    place: str
    content: str
    question: str


class FlaggedMessages(Body):
    messages: list[Flagged]


class Judgement(Body):
    feedback_id: str
    message_id: str
    user_id: str
    rating: Literal["up", "down"]
    reason: str
    feedback_text: str
    timestamp: datetime
    action_taken: str


class Judgements(Body):
    feedback: list[Judgement]


class Action(Body):
    model_config = example(action_taken="prompt added to the next label round")
    action_taken: Annotated[str, Field(max_length=500)]


class TraceStep(Body):
    """One thing that an answer came from, and its page in MLflow."""

    name: str
    says: str
    page: str


class Trace(Body):
    model: str
    steps: list[TraceStep]


def _judgement(feedback: Feedback) -> Judgement:
    return Judgement(**{name: getattr(feedback, name) for name in Judgement.model_fields})


@router.get("/figures")
async def read_figures(
    backend: TheBackend, product: TheProduct, days: Annotated[int, Query(ge=1, le=366)] = 30
) -> Figures:
    """How much is used, in all and by day."""
    since = datetime.now(UTC).date() - timedelta(days=days - 1)
    totals = await product.stores.accounts.total_usage(since)
    return Figures(
        users=await product.stores.accounts.count(),
        **(await product.stores.documents.counts())._asdict(),
        running=product.assistant.generations.running,
        waiting=product.assistant.generations.waiting,
        days=[DayTotal(**{name: getattr(each, name) for name in DayTotal.model_fields}) for each in totals],
    )


@router.get("/flagged")
async def list_flagged(product: TheProduct, limit: Limit = 50) -> FlaggedMessages:
    """The newest messages that moderation blocked, each with what was asked."""
    documents, found = product.stores.documents, []
    for message in await documents.flagged(limit):
        turns = await documents.messages(message.user_id, message.conversation_id)
        asked = [turn.content for turn in turns if turn.position == message.position - 1]
        found.append(
            Flagged(
                message_id=message.message_id,
                conversation_id=message.conversation_id,
                user_id=message.user_id,
                timestamp=message.timestamp,
                category=message.metadata["moderated"],
                place=message.metadata["moderated_place"],
                content=message.content,
                question=asked[0] if asked else "",
            )
        )
    return FlaggedMessages(messages=found)


@router.get("/trace/{message_id}")
async def read_trace(message_id: Id, product: TheProduct) -> Trace:
    """What an answer came from: the model's data, labels, training and release."""
    message = await product.stores.documents.answer(message_id)
    if message is None:
        raise ApiError(404, f"there is no answer {message_id!r}", "message_id")
    model = message.metadata["model_version"]

    def ask() -> list[Step]:
        return trace(model, tracking_address())

    try:
        steps = await asyncio.to_thread(ask)
    except BadInput as error:
        raise ApiError(503, str(error), code="no_lineage") from error
    return Trace(model=model, steps=[TraceStep(**step._asdict()) for step in steps])


@router.get("/feedback")
async def list_feedback(
    product: TheProduct, rating: Annotated[Literal["up", "down"], Query()] = "down", limit: Limit = 50
) -> Judgements:
    """The newest feedback of everybody."""
    return Judgements(feedback=[_judgement(each) for each in await product.stores.documents.judged(rating, limit)])


@router.put("/feedback/{feedback_id}")
async def note_action(feedback_id: Id, body: Action, product: TheProduct) -> Judgement:
    """Note what was done about a feedback."""
    feedback = await product.stores.documents.judgement(feedback_id)
    if feedback is None:
        raise ApiError(404, f"there is no feedback {feedback_id!r}", "feedback_id")
    noted = replace(feedback, action_taken=body.action_taken)
    await product.stores.documents.put_feedback(noted)
    return _judgement(noted)

"""`/api/feedback`: thumbs on answers, with a reason and words."""

import hashlib
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import Field

from serving.backend import TheProduct
from serving.errors import ApiError
from serving.identity import CurrentUser
from serving.schemas import Body, example
from serving.stores.documents import Feedback, now

router = APIRouter(prefix="/api/feedback", tags=["feedback"])

Reason = Literal["", "incorrect", "not_helpful", "harmful", "too_long", "other"]


class NewFeedback(Body):
    """A thumb on an answer, with a reason and words if the person likes."""

    model_config = example(message_id="msg-1", rating="down", reason="incorrect", feedback_text="It is Paris.")
    message_id: Annotated[str, Field(max_length=64)]
    rating: Literal["up", "down"]
    reason: Reason = ""
    feedback_text: Annotated[str, Field(max_length=4000)] = ""


class FeedbackId(Body):
    feedback_id: str


def feedback_id(message_id: str) -> str:
    """One feedback for an answer, which one person alone can see: judging again replaces the judgement."""
    return "fb-" + hashlib.sha256(message_id.encode()).hexdigest()[:32]


@router.post("", status_code=201)
async def create_feedback(body: NewFeedback, caller: CurrentUser, product: TheProduct) -> FeedbackId:
    """Store a thumb on one of the caller's own answers."""
    documents = product.stores.documents
    message = await documents.message(caller.user_id, body.message_id)
    if message is None or message.role != "assistant":
        raise ApiError(404, f"there is no answer {body.message_id!r}", "message_id")
    identifier = feedback_id(message.message_id)
    await documents.put_feedback(
        Feedback(
            feedback_id=identifier,
            message_id=body.message_id,
            user_id=caller.user_id,
            rating=body.rating,
            feedback_text=body.feedback_text,
            timestamp=now(),
            action_taken="",
            reason=body.reason,
        )
    )
    return FeedbackId(feedback_id=identifier)

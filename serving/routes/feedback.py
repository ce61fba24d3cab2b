"""`POST /api/feedback`: thumbs on answers."""

import hashlib

from fastapi import APIRouter

from serving.backend import TheProduct
from serving.errors import ApiError
from serving.schemas import NewFeedback
from serving.stores.documents import Feedback, now
from serving.visitors import CurrentUser

router = APIRouter(prefix="/api/feedback", tags=["feedback"])


def feedback_id(user: str, message_id: str) -> str:
    """One feedback per person and answer: judging again replaces the judgement."""
    return "fb-" + hashlib.sha256(f"{user} {message_id}".encode()).hexdigest()[:32]


@router.post("", status_code=201)
async def create_feedback(body: NewFeedback, user: CurrentUser, product: TheProduct) -> dict[str, str]:
    """Store a thumb on one of the visitor's own answers."""
    message = await product.store.message(user, body.message_id)
    if message is None or message.role != "assistant":
        raise ApiError(404, f"there is no answer {body.message_id!r}", "message_id")
    identifier = feedback_id(user, body.message_id)
    await product.store.put_feedback(
        Feedback(identifier, body.message_id, user, body.rating, body.feedback_text, now(), "")
    )
    return {"feedback_id": identifier}

"""OpenAI's API: `/v1/chat/completions`, `/v1/completions`, `/v1/models` and `/v1/moderations`."""

import uuid
from typing import Any

from fastapi import APIRouter, Request

from serving.accounting import counted, require_quota
from serving.answers import (
    STREAM,
    ChatCompletion,
    Model,
    Models,
    ModerationResult,
    Moderations,
    TextCompletion,
)
from serving.assistant import Answer, Delta, End
from serving.backend import Backend, Product, TheBackend, TheProduct
from serving.errors import ApiError
from serving.identity import Caller, Program
from serving.moderation import ModerationDown
from serving.schemas import ChatCompletionRequest, CompletionRequest, Drawing, ModerationRequest
from serving.settings import Release
from serving.streaming import Envelope, cancel_when_gone, chunks, event_stream

router = APIRouter(prefix="/v1", tags=["OpenAI API"])

ALIAS = "colloquy"  # whatever model is served, so that clients need no change after a release


def _require_model(name: str, release: Release) -> None:
    if name not in (release.model_id, ALIAS):
        raise ApiError(
            404, f"the model {name!r} is not served here; take {release.model_id!r}", "model", "model_not_found"
        )


@router.post("/chat/completions", response_model=ChatCompletion, responses=STREAM)
async def create_chat_completion(
    body: ChatCompletionRequest, request: Request, caller: Program, backend: TheBackend, product: TheProduct
) -> Any:
    """Answer a conversation, at once or as server-sent events. The prompt drops the oldest turns that don't fit."""
    _require_model(body.model, backend.release)
    await require_quota(backend, product, caller)
    answer = await product.assistant.prepare([message.message() for message in body.messages], body.options())
    return await _answered(body, Envelope(backend.release), answer, request, caller, backend, product)


@router.post("/completions", response_model=TextCompletion, responses=STREAM)
async def create_completion(
    body: CompletionRequest, request: Request, caller: Program, backend: TheBackend, product: TheProduct
) -> Any:
    """Go on with a text, at once or as server-sent events, without chat template and system message."""
    _require_model(body.model, backend.release)
    await require_quota(backend, product, caller)
    answer = await product.assistant.prepare_text(body.text(), body.options())
    envelope = Envelope(backend.release, id=f"cmpl-{uuid.uuid4().hex}", text=True)
    return await _answered(body, envelope, answer, request, caller, backend, product)


async def _answered(
    body: Drawing,
    envelope: Envelope,
    answer: Answer,
    request: Request,
    caller: Caller,
    backend: Backend,
    product: Product,
) -> Any:
    """The answer as the caller wants it: as events, or whole."""
    cancel_when_gone(request, answer)
    events = counted(answer, backend, product, caller, body.options())
    if body.stream:
        return event_stream(chunks(events, envelope, body.include_usage))
    text = ""
    end: End | None = None
    async for event in events:
        if isinstance(event, Delta):
            text += event.text
        else:
            end = event
    assert end is not None, "an answer ends with an End"
    return envelope.completion(text, end)


@router.post("/moderations")
async def create_moderation(
    body: ModerationRequest, caller: Program, backend: TheBackend, product: TheProduct
) -> Moderations:
    """Score texts by category, and say which this server would block in a person's message."""
    moderation = product.assistant.moderation
    try:
        scores = await moderation.score(body.texts())
    except ModerationDown as error:
        raise ApiError(503, "moderation failed", code="moderation_unavailable", retry_after_s=5) from error
    results = [
        ModerationResult(
            flagged=moderation.policy.decide("input", each) is not None,
            categories=moderation.policy.reached(each),
            category_scores=each,
        )
        for each in scores
    ]
    return Moderations(id=f"modr-{uuid.uuid4().hex}", model=moderation.version, results=results)


@router.get("/models")
async def list_models(caller: Program, backend: TheBackend) -> Models:
    """The served model under its own name and under its alias."""
    return Models(object="list", data=[_model(name) for name in (backend.release.model_id, ALIAS)])


@router.get("/models/{name}")
async def read_model(name: str, caller: Program, backend: TheBackend) -> Model:
    """One served model."""
    _require_model(name, backend.release)
    return _model(name)


def _model(name: str) -> Model:
    return Model(id=name, object="model", created=0, owned_by=ALIAS)

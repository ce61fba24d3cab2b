"""OpenAI's API: `POST /v1/chat/completions` and `GET /v1/models`."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from serving.assistant import Delta, End
from serving.backend import TheBackend, TheProduct
from serving.errors import ApiError
from serving.schemas import ChatCompletionRequest
from serving.settings import Release
from serving.streaming import Envelope, cancel_when_gone, chunks, event_stream

router = APIRouter(prefix="/v1", tags=["OpenAI API"])

ALIAS = "colloquy"  # whatever model is served, so that clients need no change after a release


def _require_model(name: str, release: Release) -> None:
    if name not in (release.model_id, ALIAS):
        raise ApiError(
            404, f"the model {name!r} is not served here; take {release.model_id!r}", "model", "model_not_found"
        )


@router.post("/chat/completions", response_model=None)
async def create_chat_completion(
    body: ChatCompletionRequest, request: Request, backend: TheBackend, product: TheProduct
) -> dict[str, Any] | Response:
    """Answer a conversation, at once or as server-sent events. The prompt drops the oldest turns that don't fit."""
    _require_model(body.model, backend.release)
    answer = await product.assistant.prepare([message.message() for message in body.messages], body.options())
    cancel_when_gone(request, answer)
    envelope = Envelope(backend.release)
    if body.stream:
        include_usage = body.stream_options is not None and body.stream_options.include_usage
        return event_stream(chunks(answer.events(), envelope, include_usage))
    text = ""
    end: End | None = None
    async for event in answer.events():
        if isinstance(event, Delta):
            text += event.text
        else:
            end = event
    assert end is not None, "an answer ends with an End"
    return envelope.completion(text, end)


@router.get("/models")
async def list_models(backend: TheBackend) -> dict[str, Any]:
    """The served model under its own name and under its alias."""
    return {"object": "list", "data": [_model(name) for name in (backend.release.model_id, ALIAS)]}


@router.get("/models/{name}")
async def read_model(name: str, backend: TheBackend) -> dict[str, Any]:
    """One served model."""
    _require_model(name, backend.release)
    return _model(name)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": ALIAS}

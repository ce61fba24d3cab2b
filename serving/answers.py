"""OpenAI's answers, for the API's description: `streaming` and the routes write them, tests compare the two."""

from typing import Any, Literal

from serving.schemas import Body, example


class Problem(Body):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(Body):
    """Every refusal and failure, in the form that OpenAI's clients parse."""

    model_config = example(
        error={"message": "log in first", "type": "authentication_error", "param": None, "code": "login_required"}
    )
    error: Problem


class AssistantMessage(Body):
    role: Literal["assistant"]
    content: str
    refusal: str | None


class Choice(Body):
    index: int
    message: AssistantMessage
    logprobs: None
    finish_reason: Literal["stop", "length", "content_filter"]


class TokenCounts(Body):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Moderated(Body):
    """Where and why an answer was replaced by a template."""

    place: Literal["system", "input", "output"]
    category: str


class About(Body):
    """What this server says beyond OpenAI's fields."""

    moderated: Moderated | None
    dropped_messages: int


class ChatCompletion(Body):
    """An answer that was not streamed."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[Choice]
    usage: TokenCounts
    colloquy: About


class TextChoice(Body):
    index: int
    text: str
    logprobs: None
    finish_reason: Literal["stop", "length", "content_filter"]


class TextCompletion(Body):
    """The continuation of a text that was not streamed."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: TokenCounts
    colloquy: About


class Model(Body):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class Models(Body):
    object: Literal["list"]
    data: list[Model]


class ModerationResult(Body):
    """The classifier's scores, and which of them this server would block in a person's message."""

    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]


class Moderations(Body):
    id: str
    model: str
    results: list[ModerationResult]


REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": description}
    for status, description in {
        400: "The request makes no sense; `param` names the value",
        401: "No valid session or key",
        403: "Not allowed: the wrong password, another site's page, or only for administrators",
        404: "Not there, or somebody else's",
        405: "The address does not know this method",
        409: "Not in this state: too many keys, or a message that answers no question",
        413: "The body is too large",
        429: "A limit is reached or the assistant is busy; Retry-After says when to come back",
        500: "A failure; the server's log says why",
        503: "A part does not answer; Retry-After says when to come back",
    }.items()
}
STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer, as OpenAI's chunks when it is streamed",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}

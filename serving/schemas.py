"""Request bodies: OpenAI's chat completion as far as it is supported, and the chat page's own."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipelines.core.records import Message
from serving.assistant import Options

MAX_MESSAGES = 2000
MAX_CHARACTERS = 200_000  # of one message; the context is far smaller
MAX_STOPS = 4

# Fields of OpenAI's API that this server can't honour, with the values that ask for nothing.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "presence_penalty": (0,),
    "reasoning_effort": (),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": (),
    "web_search_options": (),
}

Stop = Annotated[str, Field(min_length=1, max_length=200)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class TextPart(Body):
    type: Literal["text"]
    text: Annotated[str, Field(max_length=MAX_CHARACTERS)]


class ChatMessage(Body):
    """One message; `developer` is OpenAI's newer word for `system`."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, Field(max_length=MAX_CHARACTERS)] | list[TextPart]
    name: str | None = None
    refusal: str | None = None

    def message(self) -> Message:
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message("system" if self.role == "developer" else self.role, text)


class StreamOptions(Body):
    include_usage: bool = False


class ChatCompletionRequest(Body):
    """`POST /v1/chat/completions`."""

    model: str
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def refuse_unsupported(cls, values: Any) -> Any:
        """Say which field is not supported, instead of ignoring what a caller relies on."""
        if not isinstance(values, dict):
            return values
        for name, neutral in UNSUPPORTED.items():
            if name in values and values[name] is not None and values[name] not in neutral:
                raise ValueError(f"{name} is not supported by this server; leave it out")
        return {key: value for key, value in values.items() if key not in UNSUPPORTED}

    @model_validator(mode="after")
    def options_only_when_streaming(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is only allowed when stream is true")
        return self

    def options(self) -> Options:
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        seed = None if self.seed is None else self.seed % 2**31
        return Options(self.max_completion_tokens or self.max_tokens, self.temperature, self.top_p, seed, stop)


class NewMessage(Body):
    """`POST /api/conversations/{conversation_id}/messages`: the next turn of a person."""

    content: Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS)]


class NewFeedback(Body):
    """`POST /api/feedback`: a thumb on an answer, with words if the person likes."""

    message_id: Annotated[str, Field(max_length=64)]
    rating: Literal["up", "down"]
    feedback_text: Annotated[str, Field(max_length=4000)] = ""

"""What all bodies share, and OpenAI's requests as far as they are supported."""

from typing import Annotated, Any, Literal, Self

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipelines.core.records import Message
from serving.assistant import Options

MAX_MESSAGES = 2000
MAX_CHARACTERS = 200_000  # of one message; the context is far smaller
MAX_STOPS = 4
MAX_MODERATED = 32  # texts of one request

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

Short = Annotated[str, Field(max_length=512)]
Text = Annotated[str, Field(max_length=MAX_CHARACTERS)]
Stop = Annotated[str, Field(min_length=1, max_length=200)]


Id = Annotated[str, Path(max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]
Line = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$")]  # text without line breaks and other controls


class Body(BaseModel):
    """What goes in or out as JSON; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


def example(**values: Any) -> ConfigDict:
    """The configuration of a body with an example in the API's description."""
    return ConfigDict(extra="forbid", allow_inf_nan=False, json_schema_extra={"examples": [values]})


class TextPart(Body):
    type: Literal["text"]
    text: Annotated[str, Field(max_length=MAX_CHARACTERS)]


class ChatMessage(Body):
    """One message; `developer` is OpenAI's newer word for `system`."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(max_length=MAX_MESSAGES)]
    name: Short | None = None
    refusal: Text | None = None

    def message(self) -> Message:
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message("system" if self.role == "developer" else self.role, text)


class StreamOptions(Body):
    include_usage: bool = False


def _describe(schema: dict[str, Any]) -> None:
    """Add the unsupported fields with the values that ask for nothing, which are all that is accepted."""
    neutral = {name: {"enum": [*values, None]} for name, values in UNSUPPORTED.items()}
    schema["properties"] |= neutral
    schema["examples"] = [{"model": "colloquy", "messages": [{"role": "user", "content": "Hello"}]}]


class ChatCompletionRequest(Body):
    """`POST /v1/chat/completions`."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, json_schema_extra=_describe)
    model: Annotated[str, Field(max_length=200)]
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    user: Short | None = None
    safety_identifier: Short | None = None
    metadata: Annotated[dict[str, Short], Field(max_length=16)] | None = None
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


class ModerationRequest(Body):
    """`POST /v1/moderations`: one text or several."""

    model_config = example(input="How do I get a stain out of wool?")
    input: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_MODERATED)]
    model: Short | None = None

    def texts(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else self.input

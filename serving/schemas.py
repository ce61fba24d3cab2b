"""What all bodies share, and OpenAI's requests as far as they are supported."""

from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator

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

UNSUPPORTED_TEXT: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (),
    "n": (1,),
    "presence_penalty": (0,),
    "suffix": ("",),
}

Short = Annotated[str, Field(max_length=512)]
Text = Annotated[str, Field(max_length=MAX_CHARACTERS)]
Prompt = Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS)]
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
    include_usage: StrictBool = False


def _neutral(schema: dict[str, Any], unsupported: dict[str, tuple[Any, ...]], example: dict[str, Any]) -> None:
    """Add the unsupported fields with the values that ask for nothing, which are all that is accepted."""
    schema["properties"] |= {name: {"enum": [*values, None]} for name, values in unsupported.items()}
    schema["examples"] = [example]


def _without(values: Any, unsupported: dict[str, tuple[Any, ...]]) -> Any:
    """The body without unsupported fields; says which one asks for something, instead of ignoring it."""
    if not isinstance(values, dict):
        return values
    for name, neutral in unsupported.items():
        if name in values and values[name] is not None and values[name] not in neutral:
            raise ValueError(f"{name} is not supported by this server; leave it out")
    return {key: value for key, value in values.items() if key not in unsupported}


def _describe_chat(schema: dict[str, Any]) -> None:
    _neutral(schema, UNSUPPORTED, {"model": "colloquy", "messages": [{"role": "user", "content": "Hello"}]})


def _describe_text(schema: dict[str, Any]) -> None:
    _neutral(schema, UNSUPPORTED_TEXT, {"model": "colloquy", "prompt": "Once upon a time"})


class Drawing(Body):
    """How an answer is drawn and sent: what both kinds of completion have in common."""

    model: Annotated[str, Field(max_length=200)]
    stream: StrictBool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    user: Short | None = None

    @model_validator(mode="after")
    def options_only_when_streaming(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is only allowed when stream is true")
        return self

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def options(self) -> Options:
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        seed = None if self.seed is None else self.seed % 2**31
        return Options(self.max_tokens, self.temperature, self.top_p, seed, stop)


class ChatCompletionRequest(Drawing):
    """`POST /v1/chat/completions`."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, json_schema_extra=_describe_chat)
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    safety_identifier: Short | None = None
    metadata: Annotated[dict[str, Short], Field(max_length=16)] | None = None
    store: StrictBool | None = None

    @model_validator(mode="before")
    @classmethod
    def refuse_unsupported(cls, values: Any) -> Any:
        return _without(values, UNSUPPORTED)

    def options(self) -> Options:
        return replace(super().options(), max_tokens=self.max_completion_tokens or self.max_tokens)


class CompletionRequest(Drawing):
    """`POST /v1/completions`: a text to go on with."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, json_schema_extra=_describe_text)
    prompt: Prompt | Annotated[list[Prompt], Field(min_length=1, max_length=1)]

    @model_validator(mode="before")
    @classmethod
    def refuse_unsupported(cls, values: Any) -> Any:
        return _without(values, UNSUPPORTED_TEXT)

    def text(self) -> str:
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]


class ModerationRequest(Body):
    """`POST /v1/moderations`: one text or several."""

    model_config = example(input="How do I get a stain out of wool?")
    input: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_MODERATED)]
    model: Short | None = None

    def texts(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else self.input

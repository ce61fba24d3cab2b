"""The official client and raw sockets against the application on a real port."""

import threading
import time

import httpx
import openai
import pytest

from tests.serving.conftest import Served
from tests.serving.fakes import FakeEngine

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def client_of(served: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key="unused", max_retries=0, timeout=20)


def until(condition, seconds: float = 5.0) -> float:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, "waited in vain"
        time.sleep(0.005)
    return time.monotonic() - started


def test_models_and_a_plain_answer(served: Served):
    client = client_of(served)
    assert [model.id for model in client.models.list()] == ["colloquy-v7", "colloquy"]
    assert client.models.retrieve("colloquy").id == "colloquy"
    answer = client.chat.completions.create(model="colloquy", messages=QUESTION)
    assert answer.choices[0].message.content == "Paris is it."


def test_a_stream_arrives_in_pieces_with_its_usage(served: Served):
    served.parts.engine.answer = [f"w{index} " for index in range(60)]
    served.parts.engine.pause_s = 0.002
    stream = client_of(served).chat.completions.create(
        model="colloquy", messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert "".join(texts) == "".join(served.parts.engine.answer) and len(texts) >= 3
    assert chunks[-1].usage.completion_tokens == 60 and not chunks[-1].choices
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"


def test_a_text_is_continued_plain_and_streamed(served: Served):
    client = client_of(served)
    plain = client.completions.create(model="colloquy", prompt="The capital", max_tokens=3, echo=False, n=1)
    assert plain.object == "text_completion" and plain.choices[0].text == "Paris is it"
    assert plain.choices[0].finish_reason == "length" and plain.usage.prompt_tokens == len("The capital")
    assert served.parts.engine.seen[0][0] == "The capital"  # no template and no system message
    chunks = list(
        client.completions.create(
            model="colloquy", prompt=["The capital"], stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == "Paris is it."
    assert chunks[-1].usage.completion_tokens == 4


def test_a_harmful_or_endless_text_is_not_continued(served: Served):
    client = client_of(served)
    harmful = client.completions.create(model="colloquy", prompt="something hurtful")
    assert harmful.choices[0].finish_reason == "content_filter" and harmful.choices[0].text == "Let us stay kind."
    with pytest.raises(openai.BadRequestError, match="the context holds 2000"):
        client.completions.create(model="colloquy", prompt="x" * 2001)
    with pytest.raises(openai.BadRequestError, match="suffix is not supported"):
        client.completions.create(model="colloquy", prompt="x", suffix="y")


def test_a_blocked_stream_ends_with_the_template(served: Served):
    served.parts.engine.answer = ["fine "] * 50 + ["hurt", "ful ", "words"] + ["more "] * 10
    stream = client_of(served).chat.completions.create(model="colloquy", messages=QUESTION, stream=True)
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text.endswith("\n\nLet us stay kind.") and "hurt" not in text and text.startswith("fine fine")
    assert chunks[-1].choices[0].finish_reason == "content_filter"


def test_moderation_that_dies_on_the_way_ends_the_stream_with_an_error(served: Served):
    served.parts.engine.answer = ["fine "] * 200
    served.parts.engine.pause_s = 0.005
    stream = client_of(served).chat.completions.create(model="colloquy", messages=QUESTION, stream=True)
    with pytest.raises(openai.APIError, match="moderation failed"):
        for chunk in stream:
            if chunk.choices[0].delta.content:
                served.parts.classifier.broken = True


def test_the_clients_error_types_fit(served: Served):
    client = client_of(served)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-9", messages=QUESTION)
    with pytest.raises(openai.BadRequestError, match="tools is not supported"):
        client.chat.completions.create(
            model="colloquy", messages=QUESTION, tools=[{"type": "function", "function": {"name": "f"}}]
        )


def test_beyond_the_queue_comes_429_with_a_time_and_the_rest_is_answered(served: Served):
    served.parts.engine.gate = threading.Event()
    client = client_of(served)
    answers: list[str] = []
    refused: list[openai.RateLimitError] = []

    def ask() -> None:
        try:
            answers.append(
                client.chat.completions.create(model="colloquy", messages=QUESTION).choices[0].message.content
            )
        except openai.RateLimitError as error:
            refused.append(error)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    until(lambda: len(refused) == 2)
    served.parts.engine.gate.set()
    for thread in threads:
        thread.join(10)
    assert len(answers) == 4 and int(refused[0].response.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("stream", [True, False])
def test_a_reader_that_leaves_frees_its_slot(served: Served, stream: bool):
    served.parts.engine = FakeEngine(answer=["word "] * 100_000, pause_s=0.002)
    served.parts.products[0].assistant.generations._engine = served.parts.engine
    body = {"model": "colloquy", "messages": QUESTION, "stream": stream, "max_tokens": 1900}
    with httpx.Client() as client:
        if stream:
            with client.stream("POST", f"{served.url}/v1/chat/completions", json=body) as answer:
                for number, _ in enumerate(answer.iter_lines()):
                    if number > 20:
                        break
                assert served.parts.engine.running == 1
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post(f"{served.url}/v1/chat/completions", json=body, timeout=0.3)
    until(lambda: served.parts.engine.running == 0, seconds=1.0)


def test_a_reader_that_leaves_the_queue_frees_its_place(served: Served):
    served.parts.engine.gate = threading.Event()
    generations = served.parts.products[0].assistant.generations
    body = {"model": "colloquy", "messages": QUESTION, "stream": True}
    with httpx.Client(timeout=0.4) as client:
        for _ in range(4):
            with (
                pytest.raises(httpx.ReadTimeout),
                client.stream("POST", f"{served.url}/v1/chat/completions", json=body) as r,
            ):
                for _line in r.iter_lines():
                    pass
    until(lambda: generations.running + generations.waiting == 0, seconds=2.0)


def test_what_was_shown_is_stored_when_the_reader_stops(served: Served):
    served.parts.engine.answer = ["word "] * 5000
    served.parts.engine.pause_s = 0.002
    with httpx.Client(base_url=served.url) as client:
        conversation = client.post("/api/conversations").json()["conversation_id"]
        path = f"/api/conversations/{conversation}"
        with client.stream("POST", f"{path}/messages", json={"content": "Tell me"}) as answer:
            for line in answer.iter_lines():
                if "word" in line:
                    break

        def stored() -> bool:
            return len(client.get(path).json()["messages"]) == 2

        until(stored)
        message = client.get(path).json()["messages"][1]
    assert message["content"].startswith("word word") and message["metadata"]["finish_reason"] == "cancelled"

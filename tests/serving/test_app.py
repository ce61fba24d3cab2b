import json

import pytest

from serving.app import WEB
from tests.serving.fakes import CHAT, FakeEngine, Parts, client_of

pytestmark = pytest.mark.anyio

ASK = {"model": "colloquy-v7", "messages": [{"role": "user", "content": "What is the capital of France?"}]}


async def post(parts: Parts, body: object, path: str = "/v1/chat/completions"):
    async with client_of(parts.app()) as client:
        return await client.post(path, json=body)


async def test_a_plain_answer_has_openais_shape(parts: Parts):
    answer = (await post(parts, ASK)).json()
    assert answer["object"] == "chat.completion" and answer["model"] == "colloquy-v7"
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "Paris is it.", "refusal": None}
    assert answer["choices"][0]["finish_reason"] == "stop"
    used = answer["usage"]
    assert used["completion_tokens"] == 4 and used["total_tokens"] == used["prompt_tokens"] + 4


async def test_sampling_and_system_prompt_reach_the_engine(parts: Parts):
    body = ASK | {"temperature": 0.7, "top_p": 0.5, "seed": -1, "max_tokens": 3, "stop": "x"}
    answer = (await post(parts, body)).json()
    prompt, sampling = parts.engine.seen[0]
    assert (sampling.temperature, sampling.top_p, sampling.max_new_tokens, sampling.stop) == (0.7, 0.5, 3, ("x",))
    assert sampling.seed == 2**31 - 1
    assert prompt.startswith("<|im_start|>system\nYou are a helpful assistant.<|im_end|>")
    assert answer["choices"][0]["finish_reason"] == "length"


async def test_defaults_come_from_the_release(parts: Parts):
    await post(parts, ASK | {"temperature": None, "n": 1, "tools": [], "frequency_penalty": 0})
    _, sampling = parts.engine.seen[0]
    assert (sampling.temperature, sampling.top_p, sampling.max_new_tokens) == (CHAT.temperature, CHAT.top_p, 64)


async def test_text_parts_and_the_developer_role_are_understood(parts: Parts):
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello "}, {"type": "text", "text": "there"}]},
    ]
    await post(parts, ASK | {"messages": messages})
    prompt, _ = parts.engine.seen[0]
    assert "system\nBe brief." in prompt and "user\nHello there<" in prompt


@pytest.mark.parametrize(
    ("change", "param", "says"),
    [
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages", "'user'"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role", "'user'"),
        ({"messages": "hi"}, "messages", "list"),
        ({"temperature": 3}, "temperature", "less than or equal to 2"),
        ({"temperature": "hot"}, "temperature", "number"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"tools": [{"type": "function"}]}, None, "tools is not supported"),
        ({"n": 2}, None, "n is not supported"),
        ({"response_format": {"type": "json_object"}}, None, "response_format is not supported"),
        ({"stream_options": {"include_usage": True}}, None, "only allowed when stream is true"),
        ({"colour": "red"}, "colour", "unknown field 'colour'"),
    ],
)
async def test_what_is_not_supported_is_refused_by_name(parts: Parts, change: dict, param: str | None, says: str):
    refused = await post(parts, ASK | change)
    error = refused.json()["error"]
    assert refused.status_code == 400 and error["type"] == "invalid_request_error"
    assert says in error["message"]
    if param:
        assert error["param"].startswith(param)
    assert not parts.engine.seen


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"model": "\\ud800", "messages": []}', b"NaN"],
)
async def test_a_broken_body_is_a_400(parts: Parts, body: bytes):
    async with client_of(parts.app()) as client:
        headers = {"content-type": "application/json"}
        refused = await client.post("/v1/chat/completions", content=body, headers=headers)
    assert refused.status_code == 400 and refused.json()["error"]["type"] == "invalid_request_error"


async def test_a_huge_body_is_refused_announced_or_not(parts: Parts):
    async def endless():
        for _ in range(300):
            yield b"x" * 10_000

    async with client_of(parts.app()) as client:
        headers = {"content-type": "application/json"}
        announced = await client.post("/v1/chat/completions", content=b"x" * 2_000_000, headers=headers)
        chunked = await client.post("/v1/chat/completions", content=endless(), headers=headers)
    assert announced.status_code == 413 and chunked.status_code == 413
    assert all("larger than 1000000 bytes" in refused.json()["error"]["message"] for refused in (announced, chunked))


async def test_unknown_models_and_paths_get_openais_error(parts: Parts):
    async with client_of(parts.app()) as client:
        model = await client.post("/v1/chat/completions", json=ASK | {"model": "gpt-9"})
        path = await client.get("/v1/nothing")
    assert model.status_code == 404 and model.json()["error"]["code"] == "model_not_found"
    assert path.status_code == 404 and path.json()["error"]["type"] == "not_found_error"


async def test_a_long_conversation_loses_its_oldest_turns_and_says_so(parts: Parts):
    parts.chat = CHAT.model_copy(update={"context_tokens": 300})
    words = "word " * 10
    messages = [{"role": ("user", "assistant")[i % 2], "content": f"{i} {words}"} for i in range(9)]
    answer = (await post(parts, ASK | {"messages": messages})).json()
    prompt, sampling = parts.engine.seen[0]
    assert "8 word" in prompt and "0 word" not in prompt and "helpful assistant" in prompt
    assert len(prompt) + sampling.max_new_tokens <= 300
    assert answer["colloquy"]["dropped_messages"] > 0


async def test_a_message_beyond_the_context_is_refused(parts: Parts):
    parts.chat = CHAT.model_copy(update={"context_tokens": 300})
    refused = await post(parts, ASK | {"messages": [{"role": "user", "content": "x" * 400}]})
    assert refused.status_code == 400 and refused.json()["error"]["code"] == "context_length_exceeded"


async def test_a_harmful_question_gets_the_template_and_no_generation(parts: Parts):
    answer = (await post(parts, ASK | {"messages": [{"role": "user", "content": "I feel so sad"}]})).json()
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "content_filter" and choice["message"]["content"] == "Please talk to someone."
    assert answer["colloquy"]["moderated"] == {"place": "input", "category": "self_harm"}
    assert not parts.engine.seen


async def test_a_callers_system_message_is_checked_and_the_releases_own_is_not(parts: Parts):
    parts.chat = CHAT.model_copy(update={"system_prompt": "You are sad."})
    assert (await post(parts, ASK)).json()["choices"][0]["finish_reason"] == "stop"
    messages = [{"role": "system", "content": "Be sad."}, *ASK["messages"]]
    blocked = (await post(parts, ASK | {"messages": messages})).json()
    assert blocked["colloquy"]["moderated"] == {"place": "system", "category": "self_harm"}


async def test_an_earlier_blocked_turn_is_left_out_of_the_prompt(parts: Parts):
    messages = [
        {"role": "user", "content": "something hurtful"},
        {"role": "assistant", "content": "Let us stay kind."},
        {"role": "user", "content": "And France?"},
    ]
    answer = (await post(parts, ASK | {"messages": messages})).json()
    prompt, _ = parts.engine.seen[0]
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert "hurtful" not in prompt and "stay kind" not in prompt and "And France?" in prompt


async def test_a_harmful_answer_is_replaced(parts: Parts):
    parts.engine = FakeEngine(answer=["This ", "is hurt", "ful."])
    choice = (await post(parts, ASK)).json()["choices"][0]
    assert choice["finish_reason"] == "content_filter" and choice["message"]["content"] == "Let us stay kind."


async def test_nothing_is_answered_while_moderation_is_down(parts: Parts):
    parts.classifier.broken = True
    async with client_of(parts.app()) as client:
        refused = await client.post("/v1/chat/completions", json=ASK)
        status = (await client.get("/api/status")).json()
    assert refused.status_code == 503 and refused.json()["error"]["code"] == "moderation_unavailable"
    assert not status["ready"] and "moderation" in status["reason"]


async def test_status_tells_model_labels_and_verdict(parts: Parts):
    async with client_of(parts.app()) as client:
        status = (await client.get("/api/status")).json()
    assert status["ready"] and status["bento"] == "colloquy:v7-1a2b3c4d" and status["model_version"] == 7
    assert status["simulated_labels"] is True and status["verdict"] == "pass (demo rules)"
    assert status["promoted_by"] is None and status["promoted_reason"] is None


async def test_a_dead_store_makes_the_app_not_ready_with_the_reason(parts: Parts):
    async with client_of(parts.app()) as client:
        parts.store.down = True
        status = (await client.get("/api/status")).json()
        refused = await client.get("/api/conversations")
    assert not status["ready"] and "document store" in status["reason"]
    assert refused.status_code == 503 and refused.json()["error"]["code"] == "store_unavailable"


async def test_a_model_that_does_not_load_is_said_and_nothing_answers(parts: Parts):
    parts.classifier.categories = ("spam",)
    async with client_of(parts.app()) as client:
        status = (await client.get("/api/status")).json()
        refused = await client.post("/v1/chat/completions", json=ASK)
    assert not status["ready"] and "spam" in status["reason"]
    assert refused.status_code == 503 and refused.json()["error"]["code"] == "not_ready"


async def start_chat(client) -> str:
    return (await client.post("/api/conversations")).json()["conversation_id"]


def events(body: str) -> list[dict]:
    frames = [line.removeprefix("data: ") for line in body.split("\n\n") if line]
    assert frames[-1] == "[DONE]"
    return [json.loads(frame) for frame in frames[:-1]]


async def test_a_conversation_survives_a_reload_with_its_thumb(parts: Parts):
    async with client_of(parts.app()) as client:
        conversation = await start_chat(client)
        sent = await client.post(f"/api/conversations/{conversation}/messages", json={"content": "Capital of France?"})
        about = events(sent.text)[-1]["colloquy"]
        message = {"message_id": about["message_id"], "rating": "down"}
        assert (await client.post("/api/feedback", json=message)).status_code == 201
        await client.post("/api/feedback", json=message | {"rating": "up", "feedback_text": "good"})
        read = (await client.get(f"/api/conversations/{conversation}")).json()
        listed = (await client.get("/api/conversations")).json()["conversations"]
    assert [m["content"] for m in read["messages"]] == ["Capital of France?", "Paris is it."]
    assert read["messages"][1]["rating"] == "up" and read["messages"][1]["tokens"] == 4
    assert read["messages"][1]["metadata"]["model_version"] == "colloquy-v7"
    assert [each["title"] for each in listed] == ["Capital of France?"]


async def test_earlier_turns_of_the_conversation_are_in_the_prompt(parts: Parts):
    async with client_of(parts.app()) as client:
        conversation = await start_chat(client)
        for question in ("first", "second"):
            await client.post(f"/api/conversations/{conversation}/messages", json={"content": question})
    prompt, _ = parts.engine.seen[1]
    assert prompt.index("first") < prompt.index("Paris is it.") < prompt.index("second")


async def test_a_moderated_answer_is_kept_as_it_was_shown(parts: Parts):
    parts.engine = FakeEngine(answer=["hurt", "ful"])
    async with client_of(parts.app()) as client:
        conversation = await start_chat(client)
        await client.post(f"/api/conversations/{conversation}/messages", json={"content": "hello"})
        read = (await client.get(f"/api/conversations/{conversation}")).json()
    answer = read["messages"][1]
    assert answer["content"] == "Let us stay kind." and answer["metadata"]["moderated"] == "hate"


async def test_another_visitor_reaches_nothing(parts: Parts):
    async with client_of(parts.app()) as client:
        conversation = await start_chat(client)
        sent = await client.post(f"/api/conversations/{conversation}/messages", json={"content": "mine"})
        message_id = events(sent.text)[-1]["colloquy"]["message_id"]
        client.cookies.clear()
        assert (await client.get("/api/conversations")).json() == {"conversations": [], "next": None}
        client.cookies.set("colloquy_visitor", "someone-else")
        answers = [
            await client.get(f"/api/conversations/{conversation}"),
            await client.post(f"/api/conversations/{conversation}/messages", json={"content": "x"}),
            await client.delete(f"/api/conversations/{conversation}"),
            await client.post("/api/feedback", json={"message_id": message_id, "rating": "up"}),
        ]
    assert [answer.status_code for answer in answers] == [404] * 4


async def test_a_deleted_conversation_is_gone(parts: Parts):
    async with client_of(parts.app()) as client:
        conversation = await start_chat(client)
        assert (await client.delete(f"/api/conversations/{conversation}")).status_code == 204
        assert (await client.get(f"/api/conversations/{conversation}")).status_code == 404


async def test_the_cookie_is_out_of_reach_of_scripts(parts: Parts):
    async with client_of(parts.app()) as client:
        cookie = (await client.post("/api/conversations")).headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=lax" in cookie


async def test_the_page_loads_nothing_from_elsewhere(parts: Parts):
    async with client_of(parts.app()) as client:
        page = await client.get("/")
        files = [await client.get(f"/web/{path.name}") for path in WEB.iterdir()]
    assert page.status_code == 200 and "default-src 'none'" in page.headers["content-security-policy"]
    for text in (page.text, *(file.text for file in files)):
        assert "https://" not in text.replace("https://www.w3.org", "") and "innerHTML" not in text
    assert all(file.status_code == 200 for file in files)

"""Conversations through the application: paging, search, rename, export, edit and regenerate, and the cache."""

import pytest

from serving.stores.documents import REPLACED
from tests.serving.fakes import FakeEngine, Parts, client_of
from tests.serving.test_accounts import say, sign_up
from tests.serving.test_app import events

pytestmark = pytest.mark.anyio


async def test_the_list_has_pages_and_is_searched(parts: Parts):
    async with client_of(parts.app()) as client:
        for index in range(5):
            await say(client, f"Question {index} about {'cats' if index % 2 else 'dogs'}")
        seen, cursor = [], None
        while True:
            query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
            page = (await client.get("/api/conversations", params=query)).json()
            seen += [c["title"] for c in page["conversations"]]
            cursor = page["next"]
            if cursor is None:
                break
        assert [title[:10] for title in seen] == [f"Question {index}" for index in (4, 3, 2, 1, 0)]
        found = (await client.get("/api/conversations", params={"search": "CATS"})).json()["conversations"]
        assert len(found) == 2
        for cursor in ("x", "2026-01-01_", "9999-12-31T23:59:59+23:59_conv-1", "2026-01-01T00:00:00_conv-1"):
            assert (await client.get("/api/conversations", params={"cursor": cursor})).status_code in (200, 400)


async def test_a_conversation_is_renamed_and_keeps_its_name(parts: Parts):
    async with client_of(parts.app()) as client:
        about = await say(client, "Hello")
        path = f"/api/conversations/{about['conversation_id']}"
        assert (await client.patch(path, json={"title": "Plans"})).json()["title"] == "Plans"
        assert (await say(client, "More", about["conversation_id"]))["title"] == "Plans"
        assert (await client.get(path)).json()["title"] == "Plans"
        for bad in ("", "a\nb", "x" * 201):
            assert (await client.patch(path, json={"title": bad})).status_code == 400


async def test_a_conversation_is_exported_to_read_and_to_process(parts: Parts):
    async with client_of(parts.app()) as client:
        about = await say(client, "Capital of France?")
        path = f"/api/conversations/{about['conversation_id']}/export"
        markdown, plain = await client.get(path), (await client.get(path, params={"format": "json"})).json()
    assert markdown.text == "# Capital of France?\n\n## You\n\nCapital of France?\n\n## Assistant\n\nParis is it.\n"
    assert markdown.headers["content-disposition"].startswith("attachment")
    assert [m["content"] for m in plain["messages"]] == ["Capital of France?", "Paris is it."]


async def test_everything_of_an_account_is_exported_and_no_secret(parts: Parts):
    async with client_of(parts.app()) as client:
        await sign_up(client)
        about = await say(client, "Hello")
        await client.post("/api/feedback", json={"message_id": about["message_id"], "rating": "up"})
        key = (await client.post("/api/keys", json={"name": "x"})).json()["key"]
        exported = await client.get("/api/me/export")
    everything = exported.json()
    assert everything["account"]["email"] == "ada@example.org"
    assert everything["conversations"][0]["feedback"][0]["rating"] == "up"
    assert everything["usage"] and everything["keys"] and everything["sessions"]
    assert key not in exported.text and "auth" not in exported.text and "argon2" not in exported.text


async def test_an_edited_turn_replaces_what_came_after_it(parts: Parts):
    async with client_of(parts.app()) as client:
        first = await say(client, "first")
        conversation = first["conversation_id"]
        await say(client, "second", conversation)
        path = f"/api/conversations/{conversation}"
        sent = await client.put(f"{path}/messages/{first['question_id']}", json={"content": "first, better"})
        assert events(sent.text)[-1]["colloquy"]["message_id"] != first["message_id"]
        read = (await client.get(path)).json()["messages"]
        assert [m["content"] for m in read] == ["first, better", "Paris is it."]
        await say(client, "third", conversation)
        read = (await client.get(path)).json()["messages"]
    assert [m["content"] for m in read] == ["first, better", "Paris is it.", "third", "Paris is it."]
    prompt, _ = parts.engine.seen[-1]
    assert "second" not in prompt and "first, better" in prompt
    kept = [m for m in parts.store._messages.values() if REPLACED in m.metadata]
    assert [m.content for m in kept] == ["first", "Paris is it.", "second", "Paris is it."]


async def test_an_answer_is_generated_anew(parts: Parts):
    async with client_of(parts.app()) as client:
        about = await say(client, "Capital of France?")
        parts.products[0].assistant._engine.answer = ("Lyon", "?")
        path = f"/api/conversations/{about['conversation_id']}"
        sent = await client.post(f"{path}/messages/{about['message_id']}/regenerate")
        assert sent.status_code == 200
        read = (await client.get(path)).json()["messages"]
        for wrong in (about["question_id"], "msg-missing", about["message_id"]):
            assert (await client.post(f"{path}/messages/{wrong}/regenerate")).status_code == 404
        wrong = await client.put(f"{path}/messages/{read[1]['message_id']}", json={"content": "x"})
        assert wrong.status_code == 404
    assert [m["content"] for m in read] == ["Capital of France?", "Lyon?"]
    assert parts.engine.seen[0][0] == parts.engine.seen[1][0]


async def test_nothing_changes_when_an_edit_is_refused(parts: Parts):
    async with client_of(parts.app()) as client:
        about = await say(client, "first")
        path = f"/api/conversations/{about['conversation_id']}"
        before = (await client.get(path)).json()["messages"]
        parts.classifier.broken = True
        sent = await client.put(f"{path}/messages/{about['question_id']}", json={"content": "other"})
        assert sent.status_code == 503
        assert (await client.get(path)).json()["messages"] == before


async def test_the_next_turn_reads_the_cache_and_never_a_stale_one(parts: Parts, monkeypatch: pytest.MonkeyPatch):
    reads: list[str] = []
    messages = parts.store.messages

    async def counted(user: str, conversation: str):
        reads.append(conversation)
        return await messages(user, conversation)

    async with client_of(parts.app()) as client:
        first = await say(client, "first")
        conversation = first["conversation_id"]
        monkeypatch.setattr(parts.store, "messages", counted)
        await say(client, "second", conversation)
        assert reads == []
        await client.put(
            f"/api/conversations/{conversation}/messages/{first['question_id']}", json={"content": "instead"}
        )
        await say(client, "third", conversation)
    prompt, _ = parts.engine.seen[-1]
    assert prompt.index("instead") < prompt.index("third") and "second" not in prompt


async def test_a_question_has_a_token_count(parts: Parts):
    async with client_of(parts.app()) as client:
        about = await say(client, "Hello")
        read = (await client.get(f"/api/conversations/{about['conversation_id']}")).json()["messages"]
    assert read[0]["tokens"] == len("<|im_start|>user\nHello<|im_end|>\n") and read[1]["tokens"] == 4


async def test_an_answer_to_a_deleted_conversation_is_not_kept(parts: Parts):
    import threading

    import anyio

    parts.engine = FakeEngine(gate=threading.Event())
    async with client_of(parts.app()) as client:
        conversation = (await client.post("/api/conversations")).json()["conversation_id"]
        path = f"/api/conversations/{conversation}"
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: client.post(f"{path}/messages", json={"content": "x"}))
            while not parts.engine.running:
                await anyio.sleep(0.01)
            assert (await client.delete(path)).status_code == 204
            parts.engine.gate.set()
    assert parts.store._messages == {}


async def test_moderations_speak_openais_form(parts: Parts):
    async with client_of(parts.app()) as client:
        one = (await client.post("/v1/moderations", json={"input": "hurtful"})).json()
        two = (await client.post("/v1/moderations", json={"input": ["fine", "sad"]})).json()
        parts.classifier.broken = True
        down = await client.post("/v1/moderations", json={"input": "x"})
    assert one["model"] == "words" and one["results"][0]["flagged"]
    assert one["results"][0]["categories"] == {"hate": True, "self_harm": False}
    assert [r["flagged"] for r in two["results"]] == [False, True]
    assert down.status_code == 503 and down.json()["error"]["code"] == "moderation_unavailable"

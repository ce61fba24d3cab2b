"""Accounts, sessions, keys, limits and quota, through the application."""

import logging
import re
import uuid
from datetime import date

import httpx
import pytest

from serving.identity import SESSION_COOKIE
from tests.serving.fakes import ACCESS, CHAT, Parts, client_of
from tests.serving.test_app import ASK, events

pytestmark = pytest.mark.anyio

ADA = {"email": "ada@example.org", "password": "correct horse battery"}
GRACE = {"email": "grace@example.org", "password": "staple battery horse"}


async def sign_up(client: httpx.AsyncClient, who: dict[str, str] = ADA) -> dict:
    assert (await client.post("/api/register", json=who)).status_code == 204
    answer = await client.post("/api/login", json=who)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def say(client: httpx.AsyncClient, text: str, conversation: str | None = None) -> dict:
    """Ask in a conversation; what the server says of the answer."""
    if conversation is None:
        conversation = (await client.post("/api/conversations")).json()["conversation_id"]
    sent = await client.post(f"/api/conversations/{conversation}/messages", json={"content": text})
    assert sent.status_code == 200, sent.text
    return events(sent.text)[-1]["colloquy"]


async def test_sign_up_log_in_and_out(parts: Parts):
    async with client_of(parts.app()) as client:
        me = await sign_up(client, ADA | {"email": " Ada@Example.ORG "})
        assert me["email"] == "ada@example.org" and not me["admin"]
        assert (await client.get("/api/me")).json()["user_id"] == me["user_id"]
        cookie = client.cookies[SESSION_COOKIE]
        assert (await client.post("/api/logout")).status_code == 204
        assert SESSION_COOKIE not in client.cookies
        client.cookies.set(SESSION_COOKIE, cookie)
        ended = await client.get("/api/me")
    assert ended.status_code == 401 and ended.json()["error"]["code"] == "session_ended"
    assert f'{SESSION_COOKIE}=""' in ended.headers["set-cookie"]


async def test_the_session_cookie_is_out_of_reach_and_goes_over_tls_only(parts: Parts):
    app = parts.app()
    async with client_of(app) as client:
        await client.post("/api/register", json=ADA)
        plain = (await client.post("/api/login", json=ADA)).headers["set-cookie"].lower()
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://chat.example.org") as behind_proxy:
            secure = (await behind_proxy.post("/api/login", json=ADA)).headers["set-cookie"].lower()
    assert "httponly" in plain and "samesite=lax" in plain and "secure" not in plain
    assert "; secure" in secure


async def test_nothing_says_whether_an_address_has_an_account(parts: Parts, monkeypatch: pytest.MonkeyPatch):
    async with client_of(parts.app()) as client:
        await sign_up(client)
        client.cookies.clear()
        passwords = parts.products[0].passwords
        work: list[str] = []
        hashed, verified = passwords._hasher.hash, passwords._verify
        monkeypatch.setattr(passwords, "_verify", lambda *a: work.append("verify") or verified(*a))
        monkeypatch.setattr(
            type(passwords._hasher), "hash", lambda self, *a, **k: work.append("hash") or hashed(*a, **k)
        )
        done = []
        for path, email in (("register", ADA["email"]), ("register", GRACE["email"])):
            answer = await client.post(f"/api/{path}", json={"email": email, "password": "some new password"})
            done.append((answer.status_code, answer.content, sorted(answer.headers), tuple(work)))
            work.clear()
        for email in (ADA["email"], "nobody@example.org"):
            answer = await client.post("/api/login", json={"email": email, "password": "a wrong password"})
            done.append((answer.status_code, answer.content, sorted(answer.headers), tuple(work)))
            work.clear()
        assert (await client.post("/api/login", json=ADA)).status_code == 200  # registering again changed nothing
    assert done[0] == done[1] and done[0][3] == ("hash",)
    assert done[2] == done[3] and done[2][0] == 401 and done[2][3] == ("verify",)


@pytest.mark.parametrize(
    "email", ["", "ada", "ada@", "@x.org", "a b@x.org", "a@x", "a\x00@x.org", "a@x.org\n", "a" * 250 + "@x.org"]
)
async def test_what_is_no_address_is_refused(parts: Parts, email: str):
    async with client_of(parts.app()) as client:
        answer = await client.post("/api/register", json=ADA | {"email": email})
    if email == "a@x.org\n":
        assert answer.status_code == 204  # the ends are stripped
    else:
        assert answer.status_code == 400 and answer.json()["error"]["param"] == "email"


async def test_a_visitors_chats_go_along_to_the_account_and_not_back(parts: Parts):
    async with client_of(parts.app()) as client:
        await say(client, "Before I signed up")
        await sign_up(client)
        titles = [c["title"] for c in (await client.get("/api/conversations")).json()["conversations"]]
        assert titles == ["Before I signed up"]
        await client.post("/api/logout")
        assert (await client.get("/api/conversations")).json()["conversations"] == []


async def test_without_visitors_an_account_comes_first(parts: Parts):
    parts.chat = CHAT.model_copy(update={"access": ACCESS.model_copy(update={"visitors": False})})
    async with client_of(parts.app()) as client:
        refused = [await client.get("/api/conversations"), await client.post("/v1/chat/completions", json=ASK)]
        assert [r.status_code for r in refused] == [401, 401] and not parts.engine.seen
        assert (await client.get("/api/status")).json()["visitors"] is False
        await sign_up(client)
        key = (await client.post("/api/keys", json={"name": "x"})).json()["key"]
        client.cookies.clear()
        answer = await client.post("/v1/chat/completions", json=ASK, headers={"Authorization": f"Bearer {key}"})
        assert answer.status_code == 200


async def test_devices_are_listed_and_logged_out(parts: Parts):
    async with (
        client_of(parts.app()) as phone,
        httpx.AsyncClient(transport=phone._transport, base_url=phone.base_url) as laptop,
    ):
        await sign_up(phone)
        laptop.headers["user-agent"] = "Laptop/1"
        await laptop.post("/api/login", json=ADA)
        devices = (await laptop.get("/api/sessions")).json()["sessions"]
        assert [d["current"] for d in devices] == [d["device_info"] == "Laptop/1" for d in devices] and len(
            devices
        ) == 2
        other = next(d["session_id"] for d in devices if not d["current"])
        assert (await laptop.delete(f"/api/sessions/{other}")).status_code == 204
        assert (await phone.get("/api/me")).status_code == 401
        assert (await laptop.delete(f"/api/sessions/{other}")).status_code == 404


async def test_a_new_password_ends_the_other_sessions(parts: Parts):
    async with (
        client_of(parts.app()) as phone,
        httpx.AsyncClient(transport=phone._transport, base_url=phone.base_url) as thief,
    ):
        await sign_up(phone)
        await thief.post("/api/login", json=ADA)
        change = {"current": "not my password", "new": "a fresh new password"}
        wrong = await phone.put("/api/me/password", json=change)
        assert wrong.status_code == 403 and (await thief.get("/api/me")).status_code == 200
        change["current"] = ADA["password"]
        assert (await phone.put("/api/me/password", json=change)).status_code == 204
        assert (await thief.get("/api/me")).status_code == 401 and (await phone.get("/api/me")).status_code == 200
        assert (await thief.post("/api/login", json=ADA)).status_code == 401


async def test_preferences_are_kept_and_consent_is_off_until_given(parts: Parts):
    async with client_of(parts.app()) as client:
        me = await sign_up(client)
        assert me["preferences"] == {"theme": "system", "share_conversations": False}
        wanted = {"theme": "dark", "share_conversations": True}
        assert (await client.put("/api/me/preferences", json=wanted)).json() == wanted
        assert (await client.get("/api/me")).json()["preferences"] == wanted
        assert (await client.put("/api/me/preferences", json={"theme": "pink"})).status_code == 400


async def test_a_deleted_account_leaves_nothing_behind(parts: Parts):
    async with client_of(parts.app()) as client:
        me = await sign_up(client)
        about = await say(client, "Remember me")
        await client.post("/api/feedback", json={"message_id": about["message_id"], "rating": "up"})
        key = (await client.post("/api/keys", json={"name": "x"})).json()["key"]
        bearer = {"Authorization": f"Bearer {key}"}
        assert (await client.post("/v1/chat/completions", json=ASK, headers=bearer)).status_code == 200
        assert (await client.post("/api/me/delete", json={"password": "not my password"})).status_code == 403
        assert (await client.post("/api/me/delete", json={"password": ADA["password"]})).status_code == 204
        assert (await client.post("/v1/chat/completions", json=ASK, headers=bearer)).status_code == 401
        assert (await client.post("/api/login", json=ADA)).status_code == 401
        stores = parts.products[0].stores
        found = [await stores.shared.dump(k) async for k in stores.shared.scan_iter(f"*{me['user_id']}*")]
        assert not [entry for entry in found if b"ses" in entry]
        assert await stores.accounts.usage(me["user_id"], date.min) == []
    everything = repr(vars(parts.store))
    assert me["user_id"] not in everything and "Remember me" not in everything


async def test_a_key_is_shown_once_and_its_tokens_are_counted(parts: Parts):
    async with client_of(parts.app()) as client:
        await sign_up(client)
        made = (await client.post("/api/keys", json={"name": "my notebook"})).json()
        listed = await client.get("/api/keys")
        assert made["key"] not in listed.text and listed.json()["keys"][0]["shown"] == made["key"][:16]
        bearer = {"Authorization": f"Bearer {made['key']}"}
        used = (await client.post("/v1/chat/completions", json=ASK, headers=bearer)).json()["usage"]
        await say(client, "Hello")
        days = (await client.get("/api/usage")).json()["days"]
        by_key = {day["key_id"]: day for day in days}
        assert by_key[made["key_id"]]["prompt_tokens"] == used["prompt_tokens"]
        assert by_key[made["key_id"]]["completion_tokens"] == used["completion_tokens"] == 4
        assert by_key[""]["requests"] == 1
        assert (await client.delete(f"/api/keys/{made['key_id']}")).status_code == 204
        refused = await client.post("/v1/chat/completions", json=ASK, headers=bearer)
    assert refused.status_code == 401 and refused.json()["error"]["code"] == "invalid_api_key"


async def test_an_account_has_so_many_keys_and_no_more(parts: Parts):
    async with client_of(parts.app()) as client:
        await sign_up(client)
        answers = [(await client.post("/api/keys", json={"name": "x"})).status_code for _ in range(21)]
    assert answers == [201] * 20 + [409]


def limited(parts: Parts, **limits: int) -> None:
    parts.chat = CHAT.model_copy(update={"access": ACCESS.model_copy(update=limits)})


async def refused_after(client: httpx.AsyncClient, *requests: tuple[str, str, dict | None]) -> httpx.Response:
    """Send requests; all but the last must pass."""
    answers = [await client.request(method, path, json=body) for method, path, body in requests]
    assert all(answer.status_code != 429 for answer in answers[:-1]), answers
    assert answers[-1].status_code == 429 and int(answers[-1].headers["retry-after"]) > 0
    assert answers[-1].json()["error"]["type"] == "rate_limit_error"
    return answers[-1]


async def test_beyond_a_users_limit_comes_429_and_others_go_on(parts: Parts):
    limited(parts, requests_per_minute=3)
    async with client_of(parts.app()) as client:
        await refused_after(client, *[("GET", "/api/conversations", None)] * 4)
        client.cookies.clear()
        assert (await client.get("/api/conversations")).status_code == 200


async def test_beyond_an_addresss_limit_comes_429_whoever_asks(parts: Parts):
    limited(parts, address_requests_per_minute=3)
    app = parts.app()
    async with client_of(app):
        address = f"2001:db8:{uuid.uuid4().hex[:4]}:1"
        for index, expected in enumerate([200, 200, 200, 429]):
            transport = httpx.ASGITransport(app, client=(f"{address}::{index}", 1))  # one household's network
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                assert (await client.get("/api/conversations")).status_code == expected


async def test_guessing_passwords_is_slowed_down_for_an_address_and_for_an_account(parts: Parts):
    limited(parts, sign_ins_per_hour=3)
    app = parts.app()

    def guesser(address: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(app, client=(address, 1)), base_url="http://127.0.0.1")

    def guess(email: str) -> tuple[str, str, dict]:
        return "POST", "/api/login", {"email": email, "password": "a wrong password"}

    victim, attacker = f"{uuid.uuid4().hex}@example.org", f"2001:db8:{uuid.uuid4().hex[:4]}:1::1"
    async with client_of(app):
        async with guesser(attacker) as client:
            await refused_after(client, *[guess(f"{index}{victim}") for index in range(4)])
        for index in range(4):
            async with guesser(f"2001:db8:{uuid.uuid4().hex[:4]}:{index}::1") as client:
                answer = await client.request(*guess(victim)[:2], json=guess(victim)[2])
                assert answer.status_code == (401 if index < 3 else 429)


async def test_a_used_up_quota_is_429_until_midnight(parts: Parts):
    limited(parts, tokens_per_day=30)
    async with client_of(parts.app()) as client:
        await sign_up(client)
        await say(client, "Hello")
        conversation = (await client.post("/api/conversations")).json()["conversation_id"]
        refused = await client.post(f"/api/conversations/{conversation}/messages", json={"content": "x"})
    assert refused.status_code == 429 and refused.json()["error"]["code"] == "insufficient_quota"
    assert 0 < int(refused.headers["retry-after"]) <= 86400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 204),
        ({"Sec-Fetch-Site": "same-origin"}, 204),
        ({"Sec-Fetch-Site": "none"}, 204),
        ({"Origin": "http://127.0.0.1"}, 204),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:8080"}, 403),
    ],
)
async def test_what_another_site_makes_a_browser_send_is_refused(parts: Parts, headers: dict, status: int):
    async with client_of(parts.app()) as client:
        await sign_up(client)
        answer = await client.post("/api/logout", headers=headers)
        assert answer.status_code == status
        assert (await client.get("/api/me", headers=headers)).json()["email"] == (
            None if status == 204 else ADA["email"]
        )


async def test_administrators_see_figures_flagged_messages_and_feedback(parts: Parts, monkeypatch: pytest.MonkeyPatch):
    async with client_of(parts.app()) as client:
        await sign_up(client, GRACE)
        about = await say(client, "something hurtful")
        good = await say(client, "Hello")
        bad = {"message_id": good["message_id"], "rating": "down", "reason": "incorrect", "feedback_text": "No."}
        assert (await client.post("/api/feedback", json=bad)).status_code == 201
        assert (await client.get("/api/admin/figures")).status_code == 403
        me = await sign_up(client)
        await parts.products[0].stores.accounts.set_admin(me["user_id"], True)
        figures = (await client.get("/api/admin/figures")).json()
        assert (figures["users"], figures["conversations"], figures["messages"], figures["feedback_down"]) == (
            2,
            2,
            4,
            1,
        )
        assert figures["days"][0]["requests"] == 2
        (flagged,) = (await client.get("/api/admin/flagged")).json()["messages"]
        assert flagged["message_id"] == about["message_id"] and flagged["question"] == "something hurtful"
        assert (flagged["category"], flagged["place"]) == ("hate", "input")
        (judged,) = (await client.get("/api/admin/feedback")).json()["feedback"]
        assert judged["reason"] == "incorrect" and judged["feedback_text"] == "No."
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        untold = await client.get(f"/api/admin/trace/{judged['message_id']}")
        assert untold.status_code == 503 and "MLFLOW_TRACKING_URI" in untold.json()["error"]["message"]
        assert (await client.get("/api/admin/trace/msg-none")).status_code == 404
        path = f"/api/admin/feedback/{judged['feedback_id']}"
        assert (await client.put(path, json={"action_taken": "noted"})).json()["action_taken"] == "noted"


async def test_requests_and_answers_are_logged_with_every_field_and_no_content(parts: Parts):
    async with client_of(parts.app()) as client:
        me = await sign_up(client)
        about = await say(client, "My secret question")
        await client.get("/api/conversations/conv-missing")
    logs = [each for each in parts.store.logged if hasattr(each, "endpoint")]
    metrics = [each for each in parts.store.logged if hasattr(each, "model_id")]
    asked = next(log for log in logs if log.endpoint.startswith("POST /api/conversations/{conversation_id}/messages"))
    assert asked.user_id == me["user_id"] and asked.conversation_id == about["conversation_id"]
    assert (
        asked.status_code == 200
        and asked.response_time > 0
        and asked.request_size == len('{"content":"My secret question"}')
    )
    missing = next(log for log in logs if log.status_code == 404)
    assert missing.error_type == "not_found_error" and missing.endpoint == "GET /api/conversations/{conversation_id}"
    (metric,) = metrics
    assert metric.model_id == "colloquy-v7" and metric.completion_tokens == 4 and metric.region == "local"
    assert metric.tokens_processed == metric.prompt_tokens + 4 and metric.max_tokens == 64
    assert "secret question" not in repr(parts.store.logged) and ADA["email"] not in repr(parts.store.logged)


async def test_no_secret_is_in_any_log(parts: Parts, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture):
    caplog.set_level(logging.DEBUG)
    async with client_of(parts.app()) as client:
        await sign_up(client)
        session = client.cookies[SESSION_COOKIE]
        key = (await client.post("/api/keys", json={"name": "x"})).json()["key"]
        await client.post("/v1/chat/completions", json=ASK, headers={"Authorization": f"Bearer {key}"})
        await say(client, "a very private matter")
        await say(client, "something hurtful and private")
        await client.post("/api/login", json=ADA | {"password": "another wrong password"})
        await client.put("/api/me/password", json={"current": ADA["password"], "new": "a fresh new password"})
        parts.classifier.broken = True
        conversation = (await client.post("/api/conversations")).json()["conversation_id"]
        await client.post(f"/api/conversations/{conversation}/messages", json={"content": "a very private matter"})
        credentials = (await parts.products[0].stores.accounts.by_email(ADA["email"])).auth_credentials
    said = caplog.text + "".join(capfd.readouterr()) + repr(parts.store.logged)
    secrets = [ADA["password"], "another wrong password", "a fresh new password", session, key, credentials, "private"]
    assert said and not [secret for secret in secrets if secret in said]
    assert not re.search(r"\$argon2", said)

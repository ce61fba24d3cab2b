"""Every operation of the API's description: another user, an ended session and no session get nothing.

The operations come from the description, so that a new one can't be forgotten: its parameter must be named in
`Scene.values`, or this test fails.
"""

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from serving.identity import SESSION_COOKIE, VISITOR_COOKIE
from serving.routes import feedback
from tests.serving.fakes import ACCESS, CHAT, Parts, client_of
from tests.serving.test_accounts import GRACE, say, sign_up

pytestmark = pytest.mark.anyio

PUBLIC = {("GET", "/api/status"), ("POST", "/api/register"), ("POST", "/api/login")}
ONLY_ADMINISTRATORS = "/api/admin/"
MARK = "what only Ada said"
ADA = {"email": "ada.herself@example.org", "password": "not the one of the examples"}


@dataclass
class Scene:
    """Ada's things, and clients that are not Ada."""

    ada: httpx.AsyncClient
    grace: httpx.AsyncClient
    nobody: httpx.AsyncClient
    values: dict[str, str]  # of path parameters, Ada's

    def body_of(self, operation: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any] | None:
        """The example in the description, with Ada's ids in it."""
        if "requestBody" not in operation:
            return None
        reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        (example,) = schemas[reference.rpartition("/")[2]]["examples"]
        return {name: self.values.get(name, value) for name, value in example.items()}


@asynccontextmanager
async def scene_of(parts: Parts, visitors: bool):
    parts.chat = CHAT.model_copy(update={"access": ACCESS.model_copy(update={"visitors": visitors})})
    app = parts.app()
    async with client_of(app) as ada:

        def another() -> httpx.AsyncClient:
            return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")

        grace, nobody = another(), another()
        await sign_up(ada, ADA)
        await sign_up(grace, GRACE)
        about = await say(ada, MARK)
        thumb = {"message_id": about["message_id"], "rating": "down", "feedback_text": MARK}
        await ada.post("/api/feedback", json=thumb)
        key = (await ada.post("/api/keys", json={"name": MARK})).json()
        session = (await ada.get("/api/sessions")).json()["sessions"][0]["session_id"]
        values = {
            "conversation_id": about["conversation_id"],
            "message_id": about["message_id"],
            "session_id": session,
            "key_id": key["key_id"],
            "feedback_id": feedback.feedback_id(about["message_id"]),
            "name": "colloquy",
        }
        yield app, Scene(ada, grace, nobody, values)
        await grace.aclose()
        await nobody.aclose()


def operations(app) -> list[tuple[str, str, dict[str, Any]]]:
    paths = app.openapi()["paths"]
    return [(method.upper(), path, operation) for path, found in paths.items() for method, operation in found.items()]


async def tried(scene: Scene, app, client: httpx.AsyncClient) -> list[tuple[tuple[str, str], httpx.Response]]:
    """Every operation, asked by `client` with Ada's ids, logging out last."""
    schemas, found = app.openapi()["components"]["schemas"], []
    for method, path, operation in sorted(operations(app), key=lambda each: each[1] == "/api/logout"):
        address = path.format(**scene.values)  # KeyError: a parameter that this test does not know yet
        body = scene.body_of(operation, schemas)
        before = list(client.cookies.jar)
        found.append(((method, path), await client.request(method, address, json=body)))
        client.cookies.jar.clear()
        for cookie in before:
            client.cookies.jar.set_cookie(cookie)
    return found


async def intact(scene: Scene) -> None:
    """Nothing of Ada's has changed."""
    read = (await scene.ada.get(f"/api/conversations/{scene.values['conversation_id']}")).json()
    assert [m["content"] for m in read["messages"]] == [MARK, "Paris is it."] and read["title"] == MARK
    assert read["messages"][1]["rating"] == "down"
    assert len((await scene.ada.get("/api/keys")).json()["keys"]) == 1
    assert (await scene.ada.get("/api/me")).json()["email"] == ADA["email"]


def test_the_description_has_every_route(parts: Parts):
    import anyio

    async def check() -> None:
        async with client_of(parts.app()) as client:
            app = client._transport.app
            described = {(method, path) for method, path, _ in operations(app)}
            served = set()
            pending = list(app.routes)
            while pending:
                route = pending.pop()
                pending += getattr(route, "routes", []) or []
                if isinstance(route, APIRoute) and route.include_in_schema:
                    served |= {(method, route.path) for method in route.methods}
            assert served <= described and len(described) > 25

    anyio.run(check)


@pytest.mark.parametrize("kind", ["no session", "an ended session", "an invented session"])
async def test_without_a_live_session_everything_is_refused(parts: Parts, kind: str):
    async with scene_of(parts, visitors=False) as (app, scene):
        client = scene.nobody
        if kind == "an ended session":
            await client.post("/api/login", json=ADA)
            ended = client.cookies[SESSION_COOKIE]
            await client.post("/api/logout")
            client.cookies.set(SESSION_COOKIE, ended)
            client.headers["Authorization"] = "Bearer sk-colloquy-ended"
        elif kind == "an invented session":
            client.cookies.set(SESSION_COOKIE, "invented")
            client.headers["Authorization"] = "Bearer sk-colloquy-invented"
        for operation, answer in await tried(scene, app, client):
            if operation not in PUBLIC:
                assert answer.status_code == 401, operation
            assert MARK not in answer.text and ADA["email"] not in answer.text, operation
        await intact(scene)


@pytest.mark.parametrize("visitor", [False, True], ids=["another user", "a visitor"])
async def test_nobody_else_reaches_anything_of_ada(parts: Parts, visitor: bool):
    async with scene_of(parts, visitors=visitor) as (app, scene):
        client = scene.nobody if visitor else scene.grace
        if visitor:
            client.cookies.set(VISITOR_COOKIE, "some visitor")
        found = await tried(scene, app, client)
        for (method, path), answer in found:
            assert MARK not in answer.text and ADA["email"] not in answer.text, (method, path)
            if path.startswith(ONLY_ADMINISTRATORS):
                assert answer.status_code == (401 if visitor else 403), (method, path)
            elif "{" in path and "{name}" not in path:
                assert answer.status_code in ((401, 404) if visitor else (404,)), (method, path)
        assert dict(found)[("POST", "/api/feedback")].status_code == 404
        await intact(scene)


async def test_the_owner_reaches_what_is_refused_to_others(parts: Parts):
    """Otherwise the tests above would pass for a server that refuses everything."""
    async with scene_of(parts, visitors=False) as (app, scene):
        for method, path, _ in operations(app):
            if method == "GET" and path.startswith("/api/") and not path.startswith(ONLY_ADMINISTRATORS):
                answer = await scene.ada.get(path.format(**scene.values))
                assert answer.status_code == 200, path
        read = await scene.ada.get(f"/api/conversations/{scene.values['conversation_id']}")
        assert MARK in read.text


async def test_a_key_opens_only_its_own_interface(parts: Parts):
    async with scene_of(parts, visitors=False) as (_, scene):
        key = (await scene.ada.post("/api/keys", json={"name": "x"})).json()["key"]
        scene.nobody.headers["Authorization"] = f"Bearer {key}"
        assert (await scene.nobody.get("/v1/models")).status_code == 200
        assert (await scene.nobody.get("/api/conversations")).status_code == 401
        assert (await scene.ada.get("/v1/models")).status_code == 401  # a cookie is no key

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from labeling.client import LabelStudio, LabelStudioDown, Project
from pipelines.core.errors import BadInput
from tests.label_studio import free_port

QUICK = (0.0, 0.0)
ME = {"id": 1, "email": "ann@example.org"}
JWT = "a.b.c"


@contextmanager
def server(*answers: tuple[int, object]) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """A server that gives `answers` one after another and notes (method, path, authorization)."""
    asked: list[tuple[str, str, str]] = []
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append((self.command, self.path, self.headers.get("Authorization", "")))
            status, body = left.pop(0)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        do_GET = do_POST = do_PATCH = answer  # noqa: N815

        def log_message(self, *_):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}", asked
    finally:
        httpd.shutdown()
        httpd.server_close()


def test_a_server_that_stumbles_is_asked_again():
    with server((502, {}), (500, {"detail": "database is locked"}), (200, ME)) as (url, asked):
        assert LabelStudio(url, "t", QUICK).whoami().email == "ann@example.org"
    assert len(asked) == 3


def test_a_post_that_arrived_is_not_sent_twice():
    with (
        server((500, {"detail": "database is locked"})) as (url, asked),
        pytest.raises(LabelStudioDown, match="locked"),
    ):
        LabelStudio(url, "t", QUICK).annotate(1, [], 1.0)
    assert len(asked) == 1


def test_a_server_that_is_down_is_named_with_its_address():
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(LabelStudioDown, match=rf"{url} does not answer.*tried 3 times.*LABEL_STUDIO_URL"):
        LabelStudio(url, "t", QUICK).whoami()


def test_a_wrong_token_is_bad_input():
    with server((401, {"detail": "Invalid token."})) as (url, _), pytest.raises(BadInput, match="Invalid token"):
        LabelStudio(url, "t", QUICK).whoami()


def test_what_the_server_refuses_is_said_in_its_words():
    refusal = {"validation_errors": {"label_config": ["Validation failed on <Foo>"]}}
    with server((400, refusal)) as (url, _), pytest.raises(BadInput, match="project 'p'.*<Foo>"):
        LabelStudio(url, "t", QUICK).create_project({"title": "p"})


def test_a_personal_access_token_is_exchanged_and_again_when_access_ran_out():
    answers = [(200, {"access": "one"}), (401, {}), (200, {"access": "two"}), (200, ME)]
    with server(*answers) as (url, asked):
        assert LabelStudio(url, JWT, QUICK).whoami().id == 1
    assert [authorization for _, _, authorization in asked] == ["", "Bearer one", "", "Bearer two"]


def test_every_page_of_tasks_is_read():
    def row(number):
        return {"id": number, "data": {}, "overlap": 1, "is_labeled": False, "annotations": []}

    pages = [(200, {"tasks": [row(1), row(2)], "total": 3}), (200, {"tasks": [row(3)], "total": 3})]
    with server(*pages) as (url, _):
        assert [task.id for task in LabelStudio(url, "t", QUICK).tasks(1)] == [1, 2, 3]


def test_a_project_that_is_as_it_should_be_is_not_touched():
    with server((200, {"id": 4, "title": "new"})) as (url, asked):
        client = LabelStudio(url, "t", QUICK)
        project = Project(4, {"title": "old", "sampling": "x"})
        assert client.update_project(project, {"title": "old"}) is project
        assert client.update_project(project, {"title": "new"}).settings["title"] == "new"
    assert [method for method, _, _ in asked] == ["PATCH"]


def test_access_needs_its_variables(monkeypatch, tmp_path):
    monkeypatch.delenv("LABEL_STUDIO_URL", raising=False)
    with pytest.raises(BadInput, match="LABEL_STUDIO_URL is not set"):
        LabelStudio.from_environment()
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://there")
    monkeypatch.setenv("LABEL_STUDIO_TOKEN_FILE", str(tmp_path / "gone"))
    with pytest.raises(BadInput, match="gone, which is not there"):
        LabelStudio.from_environment()

"""The client of Airflow's REST API against a small server that misbehaves as servers do."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from deploy.local.airflow_api import AirflowApi, AirflowError
from deploy.local.settings import SettingError


class FakeAirflow:
    """Answers `replies[path]` in order, the last one for ever; a token is good until `expire` is called."""

    def __init__(self) -> None:
        self.replies: dict[str, list[tuple[int, object]]] = {}
        self.tokens = 0
        self.seen: list[tuple[str, str, object]] = []
        self.url = ""

    def expire(self) -> None:
        self.tokens += 1

    def answer(self, method: str, path: str, token: str, body: object) -> tuple[int, object]:
        if path == "/auth/token":
            good = body == {"username": "admin", "password": "right"}
            return (201, {"access_token": f"token{self.tokens}"}) if good else (401, "no")
        if token != f"Bearer token{self.tokens}":
            return 401, "expired"
        self.seen.append((method, path, body))
        replies = self.replies[path]
        return replies.pop(0) if len(replies) > 1 else replies[0]


@pytest.fixture
def airflow() -> Iterator[FakeAirflow]:
    fake = FakeAirflow()

    class Handler(BaseHTTPRequestHandler):
        def reply(self) -> None:
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.loads(text) if text else None
            code, value = fake.answer(self.command, self.path, self.headers.get("Authorization", ""), body)
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(value).encode())

        do_GET = do_POST = reply  # noqa: N815

        def log_message(self, format: str, *arguments: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        fake.url = f"http://127.0.0.1:{server.server_port}"
        yield fake
        server.shutdown()


@pytest.fixture
def api(airflow: FakeAirflow) -> AirflowApi:
    return AirflowApi(airflow.url, "admin", "right", patience_s=3)


def test_an_expired_token_is_replaced(airflow: FakeAirflow, api: AirflowApi):
    airflow.replies["/api/v2/dags/d/dagRuns/r"] = [(200, {"state": "running"})]
    assert api.run("d", "r")["state"] == "running"
    airflow.expire()
    assert api.run("d", "r")["state"] == "running"


def test_a_server_that_is_down_for_a_moment_is_asked_again(airflow: FakeAirflow, api: AirflowApi):
    airflow.replies["/api/v2/dags/d/dagRuns/r"] = [(503, "starting"), (200, {"state": "success"})]
    assert api.run("d", "r")["state"] == "success"


def test_a_server_that_stays_away_is_named():
    with pytest.raises(SettingError, match=r"127\.0\.0\.1:9 does not answer"):
        AirflowApi("http://127.0.0.1:9", "admin", "right", patience_s=0).call("GET", "/api/v2/dags")


def test_a_wrong_password_is_an_error_at_once(airflow: FakeAirflow):
    with pytest.raises(AirflowError, match="401"):
        AirflowApi(airflow.url, "admin", "wrong", patience_s=60).call("GET", "/api/v2/dags")


def test_a_refused_run_says_why(airflow: FakeAirflow, api: AirflowApi):
    airflow.replies["/api/v2/dags/d/dagRuns"] = [(422, {"detail": "profile is not one of"})]
    with pytest.raises(AirflowError, match="profile is not one of"):
        api.trigger("d", "r", {})


def test_triggering_the_same_run_twice_leaves_one(airflow: FakeAirflow, api: AirflowApi):
    airflow.replies["/api/v2/dags/d/dagRuns"] = [(200, {}), (409, "there is one")]
    api.trigger("d", "r", {"profile": "tiny"})
    api.trigger("d", "r", {"profile": "tiny"})
    assert airflow.seen[0][2] == {"dag_run_id": "r", "logical_date": None, "conf": {"profile": "tiny"}}


def test_a_pool_that_is_there_keeps_its_slots(airflow: FakeAirflow, api: AirflowApi):
    airflow.replies["/api/v2/pools"] = [(409, "there is one")]
    api.make_pool("compute", 1, "stages")
    assert [method for method, _, _ in airflow.seen] == ["POST"]


def test_a_dag_that_is_not_read_yet_has_no_time(airflow: FakeAirflow, api: AirflowApi):
    airflow.replies["/api/v2/dags/d"] = [(404, "no"), (200, {"last_parsed_time": "2026-11-20T22:00:00.5Z"})]
    assert api.parsed_at("d") is None
    assert api.parsed_at("d") == 1795212000.5


def test_only_import_errors_of_the_files_as_they_are_count(airflow: FakeAirflow, api: AirflowApi):
    old = {"filename": "a.py", "stack_trace": "…\nNameError: old\n", "timestamp": "2026-11-20T21:00:00Z"}
    new = {"filename": "a.py", "stack_trace": "…\nNameError: new\n", "timestamp": "2026-11-20T22:00:01Z"}
    airflow.replies["/api/v2/importErrors"] = [(200, {"import_errors": [old, new]})]
    assert api.import_errors(since=1795212000) == ["a.py: NameError: new"]

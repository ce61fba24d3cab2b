"""A client of Airflow's REST API for what the stack and the demo ask of it. Standard library only."""

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from datetime import datetime
from typing import Any

from deploy.local.settings import SettingError

# Loopback is never behind a proxy, whatever the environment says.
open_directly = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


class AirflowError(Exception):
    """Airflow refused a request; the message has its answer, `code` its HTTP status."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class AirflowApi:
    """Speaks to one API server; a server that is down for a moment is asked again."""

    def __init__(self, url: str, user: str, password: str, patience_s: float = 90) -> None:
        self._url = url
        self._user = user
        self._password = password
        self._patience_s = patience_s
        self._token = ""

    def _send(self, method: str, path: str, body: Any, token: str) -> Any:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._url}{path}", data, headers, method=method)
        with open_directly(request, timeout=30) as response:
            return json.loads(response.read() or b"null")

    def _sign_in(self) -> str:
        answer = self._send("POST", "/auth/token", {"username": self._user, "password": self._password}, "")
        return str(answer["access_token"])

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One request, with a fresh token when the old one is refused.

        Raises:
            AirflowError: the request was refused.
            SettingError: the server can't be reached.
        """
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                self._token = self._token or self._sign_in()
                return self._send(method, path, body, self._token)
            except urllib.error.HTTPError as error:
                if error.code == 401 and self._token:
                    self._token = ""
                elif error.code < 500:
                    answer = error.read().decode(errors="replace")
                    raise AirflowError(f"Airflow refused {method} {path}: {error.code} {answer}", error.code) from error
                cause: Exception = error
            except (OSError, ValueError) as error:
                cause = error
            if time.monotonic() > deadline:
                raise SettingError(f"Airflow at {self._url} does not answer ({cause}); make status shows the stack")
            time.sleep(0.5)

    def make_pool(self, name: str, slots: int, description: str) -> None:
        """Create the pool `name` unless it is there; slots that a person changed stay."""
        body = {"name": name, "slots": slots, "description": description, "include_deferred": False}
        try:
            self.call("POST", "/api/v2/pools", body)
        except AirflowError as error:
            if error.code != 409:
                raise

    def parsed_at(self, dag: str) -> float | None:
        """When the DAG processor last read `dag`, in seconds since the epoch; None when it has not yet."""
        try:
            found = self.call("GET", f"/api/v2/dags/{dag}")
        except AirflowError as error:
            if error.code != 404:
                raise
            return None
        return datetime.fromisoformat(found["last_parsed_time"]).timestamp()

    def import_errors(self, since: float) -> list[str]:
        """Why DAG files could not be read, each in one line, as far as that was after `since`."""
        found = self.call("GET", "/api/v2/importErrors")["import_errors"]
        return [
            f"{entry['filename']}: {entry['stack_trace'].strip().splitlines()[-1]}"
            for entry in found
            if datetime.fromisoformat(entry["timestamp"]).timestamp() >= since
        ]

    def trigger(self, dag: str, run_id: str, conf: dict[str, Any]) -> None:
        """Start the run `run_id` of `dag`; one that is there is left as it is, since an answer may have been lost."""
        body = {"dag_run_id": run_id, "logical_date": None, "conf": conf}
        try:
            self.call("POST", f"/api/v2/dags/{dag}/dagRuns", body)
        except AirflowError as error:
            if error.code != 409:
                raise

    def run(self, dag: str, run_id: str) -> dict[str, Any]:
        """The run: `state`, `start_date`, `end_date` and more."""
        found: dict[str, Any] = self.call("GET", f"/api/v2/dags/{dag}/dagRuns/{urllib.parse.quote(run_id)}")
        return found

    def tasks(self, dag: str, run_id: str) -> list[dict[str, Any]]:
        """The run's task instances: `task_id`, `state`, `duration`, `try_number`, `start_date`, `end_date`."""
        path = f"/api/v2/dags/{dag}/dagRuns/{urllib.parse.quote(run_id)}/taskInstances?limit=200"
        found: list[dict[str, Any]] = self.call("GET", path)["task_instances"]
        return found

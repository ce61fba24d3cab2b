"""The only code that talks to Label Studio: its HTTP API behind typed calls, with retries and clear errors.

The official SDK costs 2.6 s to import, which every look of a waiting run would pay; the dozen calls made here don't
need it. Tried with Label Studio 1.23.2. Both of its tokens work: the legacy one (40 hex digits) and the personal
access token (a JWT that is exchanged for short-lived access).
"""

import base64
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

from pipelines.core.errors import BadInput

URL_VARIABLE = "LABEL_STUDIO_URL"
TOKEN_FILE_VARIABLE = "LABEL_STUDIO_TOKEN_FILE"

RETRY_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0)  # a restarted server answers after about 3 s
TIMEOUT_S = 60.0
IMPORT_CHUNK = 500  # tasks a request: five responses of 8,000 characters each are 20 MB
PAGE = 100  # tasks; the largest page that the server gives
_TRANSIENT = {500, 502, 503, 504}  # 500: SQLite's "database is locked"


class LabelStudioDown(Exception):
    """The server did not answer, after retries. Trying again later can help."""


@dataclass(frozen=True, slots=True)
class User:
    """An account of the server."""

    id: int
    email: str


@dataclass(frozen=True, slots=True)
class ServerAnnotation:
    """One submission as the server stores it; `result` is in the format of `labeling/judgement.py`."""

    id: int
    completed_by: int
    was_cancelled: bool
    lead_time_s: float
    result: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class ServerTask:
    """One task of a project with what was submitted for it."""

    id: int
    data: dict[str, Any]
    overlap: int  # how many people the label stream gives it to
    is_labeled: bool  # the label stream is done with it
    annotations: tuple[ServerAnnotation, ...]


@dataclass(frozen=True, slots=True)
class Project:
    """A project of the server; `settings` are its fields as the API has them."""

    id: int
    settings: dict[str, Any]


def _is_jwt(token: str) -> bool:
    return token.count(".") == 2


def _complaint(response: httpx.Response) -> str:
    """What the server has to say about a refused request."""
    try:
        body = response.json()
    except ValueError:
        return f"{response.status_code} {response.reason_phrase}"
    if not isinstance(body, dict):
        return str(body)[:1000]
    said = body.get("validation_errors") or body.get("detail") or body
    return f"{response.status_code} {json.dumps(said, ensure_ascii=False)[:1000]}"


class LabelStudio:
    """One account's access to a server. Threads may share it."""

    def __init__(self, url: str, token: str, retry_pauses_s: Sequence[float] = RETRY_PAUSES_S) -> None:
        self.url = url.rstrip("/")
        self._token = token.strip()
        self._pauses = tuple(retry_pauses_s)
        self._access = "" if _is_jwt(self._token) else f"Token {self._token}"
        self._http = httpx.Client(base_url=self.url, timeout=TIMEOUT_S, trust_env=False)

    @classmethod
    def from_environment(cls) -> Self:
        """The administrator's access, from LABEL_STUDIO_URL and LABEL_STUDIO_TOKEN_FILE.

        Raises:
            BadInput: a variable is not set or its file is not there.
        """
        for name in (URL_VARIABLE, TOKEN_FILE_VARIABLE):
            if not os.environ.get(name):
                raise BadInput(f"{name} is not set; start the stack with `make up`, or point it at your Label Studio")
        path = Path(os.environ[TOKEN_FILE_VARIABLE])
        if not path.is_file():
            raise BadInput(f"{TOKEN_FILE_VARIABLE} names {path}, which is not there; `make up` writes it")
        return cls(os.environ[URL_VARIABLE], path.read_text(encoding="utf-8"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    # requests

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send, with retries: a POST only where it surely did not arrive, anything else on transient errors too."""
        trouble = ""
        for pause in (*self._pauses, None):
            try:
                response = self._http.request(method, path, **options)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                trouble = str(error)
            except httpx.TransportError as error:
                if method == "POST":
                    raise LabelStudioDown(f"{method} {self.url}{path} was not answered ({error!r})") from error
                trouble = repr(error)
            else:
                if response.status_code not in _TRANSIENT or method == "POST":
                    return response
                trouble = _complaint(response)
            if pause is not None:
                time.sleep(pause)
        raise LabelStudioDown(
            f"Label Studio at {self.url} does not answer {method} {path} ({trouble}), tried {len(self._pauses) + 1} "
            f"times; see whether it runs (`make status`) and whether {URL_VARIABLE} is right"
        )

    def _exchange(self) -> None:
        """Trade the personal access token for access."""
        response = self._send("POST", "/api/token/refresh/", json={"refresh": self._token})
        if response.is_error:
            raise self._refused(response, "the personal access token")
        self._access = f"Bearer {response.json()['access']}"

    def _refused(self, response: httpx.Response, what: str) -> Exception:
        if response.status_code in (401, 403):
            return BadInput(
                f"Label Studio at {self.url} does not accept the token for {what} ({_complaint(response)}); "
                f"copy it again from its page Account & Settings into the file that {TOKEN_FILE_VARIABLE} names"
            )
        if response.status_code >= 500:
            return LabelStudioDown(f"Label Studio at {self.url} failed on {what}: {_complaint(response)}")
        return BadInput(f"Label Studio at {self.url} refuses {what}: {_complaint(response)}")

    def _call(self, method: str, path: str, what: str, **options: Any) -> Any:
        """Send as this account; `what` names the request in errors. Returns the decoded body."""
        if not self._access:
            self._exchange()
        response = self._send(method, path, headers={"Authorization": self._access}, **options)
        if response.status_code == 401 and _is_jwt(self._token):  # access lasts five minutes
            self._exchange()
            response = self._send(method, path, headers={"Authorization": self._access}, **options)
        if response.is_error:
            raise self._refused(response, what)
        return response.json() if response.content else None

    # accounts

    def whoami(self) -> User:
        """The account of this token."""
        row = self._call("GET", "/api/current-user/whoami", "a look at the own account")
        return User(row["id"], row["email"])

    def users(self) -> dict[int, User]:
        """Every account of the server by its id."""
        rows = self._call("GET", "/api/users/", "the list of users")
        return {row["id"]: User(row["id"], row["email"]) for row in rows}

    def sign_up(self, email: str, password: str, first_name: str, last_name: str) -> str:
        """Create an account through the invitation link, as a person does; returns its personal access token.

        POST /api/users/ would make an account without a usable password.
        """
        invitation = self._call("GET", "/api/invite", "an invitation link")["invite_url"]
        with httpx.Client(base_url=self.url, timeout=TIMEOUT_S, trust_env=False) as browser:
            browser.get(invitation)

            def csrf() -> dict[str, str]:  # the server changes it at login
                return {"X-CSRFToken": browser.cookies.get("csrftoken", "") or "", "Referer": self.url}

            form = {"email": email, "password": password, "allow_newsletters": "false", "how_find_us": ""}
            answer = browser.post(invitation, data=form, headers=csrf())
            if answer.status_code != 302:  # it shows the form again when it does not like it
                raise BadInput(f"Label Studio at {self.url} refuses to sign up {email} ({answer.status_code})")
            token = browser.post("/api/token/", json={}, headers=csrf())
            if token.is_error:
                raise self._refused(token, f"a personal access token for {email}")
            claims = token.json()["token"].split(".")[1]
            user_id = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["user_id"]
            names = {"first_name": first_name, "last_name": last_name}
            browser.patch(f"/api/users/{user_id}/", json=names, headers=csrf())
        return str(token.json()["token"])

    # projects

    def find_project(self, title: str) -> Project | None:
        """The oldest project that is called exactly `title`."""
        found = self._call("GET", "/api/projects/", "the list of projects", params={"title": title, "page_size": 100})
        same = sorted((row for row in found["results"] if row["title"] == title), key=lambda row: row["id"])
        return Project(same[0]["id"], same[0]) if same else None

    def create_project(self, settings: dict[str, Any]) -> Project:
        """Create a project with `settings`."""
        row = self._call("POST", "/api/projects/", f"project {settings['title']!r}", json=settings)
        return Project(row["id"], row)

    def update_project(self, project: Project, settings: dict[str, Any]) -> Project:
        """Change what differs from `settings`; nothing is sent when nothing does."""
        changed = {key: value for key, value in settings.items() if project.settings.get(key) != value}
        if not changed:
            return project
        row = self._call(
            "PATCH", f"/api/projects/{project.id}/", f"project {project.settings['title']!r}", json=changed
        )
        return Project(row["id"], row)

    def ensure_webhook(self, project_id: int, url: str, headers: dict[str, str], actions: Sequence[str]) -> None:
        """Have the server call `url` on `actions` of a project, once."""
        rows = self._call("GET", "/api/webhooks/", "the list of webhooks", params={"project": project_id})
        wanted = {"url": url, "headers": headers, "actions": list(actions), "send_for_all_actions": False}
        there = [row for row in rows if row["url"] == url and row["project"] == project_id]
        if not there:
            body = wanted | {"project": project_id, "send_payload": True}
            self._call("POST", "/api/webhooks/", f"a webhook to {url}", json=body)
        elif there[0]["headers"] != headers:
            self._call("PATCH", f"/api/webhooks/{there[0]['id']}/", f"a webhook to {url}", json={"headers": headers})

    # tasks

    def import_tasks(self, project_id: int, data: Sequence[dict[str, Any]]) -> None:
        """Add tasks with `data` to a project, in order."""
        for start in range(0, len(data), IMPORT_CHUNK):
            rows = [{"data": row} for row in data[start : start + IMPORT_CHUNK]]
            self._call("POST", f"/api/projects/{project_id}/import", "an import of tasks", json=rows)

    def import_answers(self, project_id: int, data: Sequence[dict[str, Any]], authors: Sequence[int]) -> None:
        """Add tasks that count as done by their author (an account), so that the label stream asks others only."""
        rows = [
            {"data": row, "annotations": [{"completed_by": author, "result": []}]}
            for row, author in zip(data, authors, strict=True)
        ]
        for start in range(0, len(rows), IMPORT_CHUNK):
            chunk = rows[start : start + IMPORT_CHUNK]
            self._call("POST", f"/api/projects/{project_id}/import", "an import of answers", json=chunk)

    def update_task(self, task_id: int, changes: dict[str, Any]) -> None:
        """Change fields of one task."""
        self._call("PATCH", f"/api/tasks/{task_id}/", f"a change of task {task_id}", json=changes)

    def delete_task(self, task_id: int) -> None:
        """Delete one task with what was submitted for it."""
        self._call("DELETE", f"/api/tasks/{task_id}/", f"a deletion of task {task_id}")

    def tasks(self, project_id: int) -> Iterator[ServerTask]:
        """Every task of a project with every annotation, by id.

        Pages are counted by position. Where a task is deleted meanwhile, the ones behind it move up, so the pages are
        read again for those that slipped through.
        """
        seen: set[int] = set()
        fetched, page, before = 0, 1, 0
        while True:
            # "include" would save half of the bytes, but leaves nothing but the id of each annotation.
            query = {"project": project_id, "fields": "all", "page": page, "page_size": PAGE}
            found = self._call("GET", "/api/tasks/", f"the tasks of project {project_id}", params=query)
            rows, total = found["tasks"], found["total"]
            for row in rows:
                if row["id"] not in seen:
                    seen.add(row["id"])
                    yield _server_task(row)
            fetched, page = (0, 1) if total < before else (fetched + len(rows), page + 1)
            if page > 1 and (not rows or fetched >= total):
                return
            before = total

    def annotate(
        self,
        task_id: int,
        result: Sequence[dict[str, Any]],
        lead_time_s: float,
        author: int | None = None,
        was_cancelled: bool = False,
    ) -> None:
        """Submit an annotation as this account, or in the name of the account `author`."""
        body = {"result": list(result), "lead_time": lead_time_s, "was_cancelled": was_cancelled}
        if author is not None:
            body["completed_by"] = author
        self._call("POST", f"/api/tasks/{task_id}/annotations/", f"an annotation of task {task_id}", json=body)


def annotation_from(row: dict[str, Any]) -> ServerAnnotation:
    """A submission as the API and webhooks have it."""
    return ServerAnnotation(
        id=row["id"],
        completed_by=row["completed_by"],
        was_cancelled=bool(row["was_cancelled"]),
        lead_time_s=float(row["lead_time"] or 0.0),
        result=tuple(row["result"] or ()),
    )


def _server_task(row: dict[str, Any]) -> ServerTask:
    annotations = (annotation_from(annotation) for annotation in row["annotations"])
    by_id = tuple(sorted(annotations, key=lambda annotation: annotation.id))
    return ServerTask(row["id"], row["data"], row["overlap"], row["is_labeled"], by_id)

"""A turn of the loop: thumbs in production, a label round about them, a next candidate; and who saw whose words."""

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow import MlflowClient

from deploy.local.airflow_api import AirflowApi, AirflowError
from deploy.local.settings import ADMIN
from pipelines.core import artifacts, feedback
from pipelines.core.jsonl import read_json, read_rows
from pipelines.core.workspace import folder

from .conftest import Loop

pytestmark = pytest.mark.loop

ENDED = ("success", "failed")
QUESTIONS = ["Which river is the longest of all?", "How do I boil two eggs at once?", "Why is the evening sky so red?"]


def ask_and_rate(url: str) -> str:
    """An account that shares its conversations asks and is not content; returns its id."""
    with httpx.Client(base_url=url, timeout=120) as client:
        who = {"email": "ada@example.org", "password": "correct horse battery"}
        client.post("/api/register", json=who).raise_for_status()
        client.post("/api/login", json=who).raise_for_status()
        wanted = {"theme": "system", "share_conversations": True}
        client.put("/api/me/preferences", json=wanted).raise_for_status()
        for question in QUESTIONS:
            conversation = client.post("/api/conversations", json={}).json()["conversation_id"]
            path = f"/api/conversations/{conversation}"
            client.post(f"{path}/messages", json={"content": question}).raise_for_status()
            answer = client.get(path).json()["messages"][-1]
            rating = {"message_id": answer["message_id"], "rating": "down", "reason": "incorrect"}
            client.post("/api/feedback", json=rating).raise_for_status()
        user: str = client.get("/api/me").json()["user_id"]
        return user


def learn(loop: Loop, run_id: str, seconds: float = 1500) -> dict[str, Any]:
    """Run `learn_from_feedback` and the run of `train_assistant` that it starts; returns the latter."""
    passwords = json.loads((loop.home / "secrets" / "passwords.json").read_text())
    api = AirflowApi(loop.addresses["airflow"], ADMIN, passwords["airflow_password"])
    api.trigger("learn_from_feedback", run_id, {})
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(1)
        assert api.run("learn_from_feedback", run_id)["state"] != "failed"
        try:
            run = api.run("train_assistant", f"feedback-{run_id}")
        except AirflowError as error:
            assert error.code == 404
            continue
        if run["state"] in ENDED:
            return run
    raise TimeoutError(f"feedback-{run_id} did not end within {seconds:.0f} s")


@pytest.fixture(scope="module")
def user(loop: Loop) -> str:
    return ask_and_rate(loop.addresses["chat"])


@pytest.fixture(scope="module")
def learned(loop: Loop, user: str) -> Path:
    """The workspace of the run that learned from the user's thumbs."""
    learn(loop, "learn")
    return folder(loop.home, "feedback-learn")


def test_people_look_at_what_was_rated_beside_fresh_answers_of_the_champion(learned: Path) -> None:
    found = read_rows(learned / artifacts.FEEDBACK)
    rated = {row["prompt"]["messages"][-1]["content"]: row["answer"] for row in found}
    assert set(rated) == set(QUESTIONS)
    tasks = {row["prompt"]["messages"][-1]["content"]: row for row in read_rows(learned / artifacts.LABEL_BATCH)}
    for question, answer in rated.items():
        assert tasks[question]["completions"][0]["text"] == answer
        assert len(tasks[question]["completions"]) == 4


def test_the_round_goes_on_from_the_champion_and_its_candidate_goes_through_the_gate(loop: Loop, learned: Path) -> None:
    assert read_json(learned / artifacts.PREVIOUS_ROUND_MANIFEST)["number"] == 2
    summary = read_json(learned / ".run" / "summary.json")
    champion = MlflowClient(loop.addresses["mlflow"]).get_model_version_by_alias("colloquy", "champion")
    if summary["verdict"]["verdict"] == "pass":
        assert summary["failures"] == []
        assert int(champion.version) == summary["model_version"]
        assert httpx.get(f"{loop.addresses['chat']}/api/status").json()["bento"] == summary["bento"]
    else:  # what people say of a model that answers gibberish may also be too little
        assert int(champion.version) == loop.first.summary["model_version"]


def test_what_was_rated_is_exported_once(loop: Loop, learned: Path) -> None:
    (snapshot,) = feedback.snapshots(loop.home)
    assert len(list(read_rows(snapshot / feedback.OWNERS))) == len(QUESTIONS)


def test_deletion_finds_the_versions_that_saw_a_user_or_a_labeler(loop: Loop, learned: Path, user: str) -> None:
    first = loop.first.summary["model_version"]
    labeler = next(read_rows(loop.first.workspace / artifacts.ANNOTATIONS))["labeler"]
    seen = loop.run("serving.operations.deletion", "--labeler", labeler)
    assert f"version {first}: artifacts/pull_annotations of run first" in seen
    seen = loop.run("serving.operations.deletion", "--user", user)
    released = read_json(learned / ".run" / "summary.json")["model_version"]
    assert f"version {first}:" not in seen
    assert (f"version {released}: artifacts/sample_completions of run feedback-learn" in seen) == bool(released)

"""Demonstrations by people, on a real server: written, checked by somebody else, returned, corrected, snapshotted."""

import json
from dataclasses import asdict

import pytest

from labeling.accounts import read_accounts
from labeling.client import LabelStudio
from labeling.demonstrations import find, titles
from labeling.pull_demonstrations import pull
from labeling.push_demonstrations import push
from pipelines.core import artifacts
from pipelines.core.errors import BadInput, ExitCode
from pipelines.core.jsonl import read_json, read_rows
from pipelines.core.records import Conversation, Message, WrittenAnswer
from tests.labeling.batches import AWKWARD, ROOT, workspace

PULL, PUSH = "labeling.pull_demonstrations", "labeling.push_demonstrations"


def prompt(text: str) -> Conversation:
    return Conversation(text, (Message("user", text),), "facts", "us", "CC0-1.0")


def text(control: str, value: str) -> dict:
    return {"from_name": control, "to_name": "conversation", "type": "textarea", "value": {"text": [value]}}


def choice(control: str, value: str) -> dict:
    return {"from_name": control, "to_name": "conversation", "type": "choices", "value": {"choices": [value]}}


@pytest.fixture
def people(label_studio, labelers_file, monkeypatch, tmp_path):
    """Three people's access to the server."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLLOQUY_HOME", str(tmp_path / "home"))
    return [LabelStudio(label_studio.url, account.token) for account in read_accounts(labelers_file)]


def next_task(labeler: LabelStudio, project_id: int) -> int | None:
    """The task that the label stream gives to `labeler`."""
    try:
        return labeler._call("GET", f"/api/projects/{project_id}/next", "the next task")["id"]
    except BadInput:
        return None


def test_an_answer_counts_once_a_second_person_accepted_it(admin, people):
    ann, bob, _ = people
    prompts = [prompt("How many legs does a spider have?")]
    push(admin, "legs", prompts)
    projects = find(admin, "legs")
    (task,) = admin.tasks(projects.write.id)
    assert next_task(ann, projects.write.id) == task.id
    ann.annotate(task.id, [text("answer", "Six <b>legs</b>.")], 30.0)
    push(admin, "legs", prompts)
    (check,) = admin.tasks(projects.check.id)
    assert "Six &lt;b&gt;legs&lt;/b&gt;." in check.data["conversation_html"]
    assert next_task(ann, projects.check.id) is None  # nobody checks what he wrote
    assert next_task(bob, projects.check.id) == check.id

    ann.annotate(check.id, [choice("verdict", "accept")], 5.0)  # the API lets her, the pull does not count it
    (open_answer,) = pull(admin, "legs")
    assert (open_answer.verdict, open_answer.checker) == ("open", "")

    bob.annotate(check.id, [choice("verdict", "return"), text("reason", "Eight, not six.")], 9.0)
    push(admin, "legs", prompts)
    _, again = admin.tasks(projects.write.id)
    assert (again.data["attempt"], again.data["draft"]) == (2, "Six <b>legs</b>.")
    assert "Eight, not six." in again.data["returned_html"]
    bob.annotate(again.id, [text("answer", "Eight legs.")], 20.0)
    push(admin, "legs", prompts)
    _, second = admin.tasks(projects.check.id)
    ann.annotate(second.id, [choice("verdict", "accept")], 7.0)

    push(admin, "legs", prompts)
    assert len(list(admin.tasks(projects.write.id))) == len(list(admin.tasks(projects.check.id))) == 2
    first, last = pull(admin, "legs")
    assert (first.verdict, first.reason, first.attempt) == ("returned", "Eight, not six.", 1)
    assert (last.verdict, last.attempt, last.lead_time_s) == ("accepted", 2, 20.0)
    assert (first.author, first.checker) == (last.checker, last.author)
    assert last.demonstration.chat[-1] == {"role": "assistant", "content": "Eight legs."}
    assert WrittenAnswer.from_row(json.loads(json.dumps(last.to_row()))) == last


def test_who_has_no_answer_leaves_the_prompt_to_somebody_else(admin, people):
    ann, bob, _ = people
    prompts = [prompt("What is a syzygy?")]
    push(admin, "hard", prompts)
    projects = find(admin, "hard")
    (task,) = admin.tasks(projects.write.id)
    ann.annotate(task.id, [choice("unanswered", "cannot_answer")], 5.0)
    assert next_task(bob, projects.write.id) is None
    push(admin, "hard", prompts)
    assert next_task(ann, projects.write.id) is None
    assert next_task(bob, projects.write.id) == task.id
    assert pull(admin, "hard") == []


def test_only_the_verdict_of_a_checker_counts_where_people_have_roles(admin, people, labelers_file, monkeypatch):
    ann, bob, eve = people
    prompts = [prompt("Do bees sleep?")]
    push(admin, "roles", prompts)
    projects = find(admin, "roles")
    (task,) = admin.tasks(projects.write.id)
    ann.annotate(task.id, [text("answer", "They do.")], 30.0)
    push(admin, "roles", prompts)
    (check,) = admin.tasks(projects.check.id)
    rows = [asdict(account) for account in read_accounts(labelers_file)]
    rows[2]["role"] = "checker"
    roles = labelers_file.with_name("people.json")
    roles.write_text(json.dumps(rows))
    monkeypatch.setenv("PEOPLE_FILE", str(roles))
    bob.annotate(check.id, [choice("verdict", "accept")], 5.0)
    assert [answer.verdict for answer in pull(admin, "roles")] == ["open"]
    push(admin, "roles", prompts)
    assert next_task(eve, projects.check.id) == check.id
    eve.annotate(check.id, [choice("verdict", "accept")], 5.0)
    assert [answer.verdict for answer in pull(admin, "roles")] == ["accepted"]


def test_an_answer_that_was_changed_is_checked_again(admin, people):
    ann, bob, _ = people
    prompts = [prompt("Name a bee.")]
    push(admin, "changed", prompts)
    projects = find(admin, "changed")
    (task,) = admin.tasks(projects.write.id)
    ann.annotate(task.id, [text("answer", "The honey bee.")], 30.0)
    push(admin, "changed", prompts)
    (check,) = admin.tasks(projects.check.id)
    bob.annotate(check.id, [choice("verdict", "accept")], 5.0)
    assert [answer.verdict for answer in pull(admin, "changed")] == ["accepted"]
    (written,) = next(iter(admin.tasks(projects.write.id))).annotations
    changed = {"result": [text("answer", "The bumblebee.")]}
    ann._call("PATCH", f"/api/annotations/{written.id}/", "a change", json=changed)
    assert [answer.verdict for answer in pull(admin, "changed")] == ["open"]
    push(admin, "changed", prompts)
    assert len(list(admin.tasks(projects.check.id))) == 2


def test_the_stage_snapshots_a_round_in_bytes_that_stay(run, admin, people, tmp_path):
    prompts = [prompt(f"{number}: {words}") for number, words in enumerate(AWKWARD)]
    push(admin, "awkward", prompts)
    projects = find(admin, "awkward")
    for task, words in zip(admin.tasks(projects.write.id), AWKWARD, strict=True):
        people[0].annotate(task.id, [text("answer", words or "x" * 8000)], 9.0)
    root = workspace(tmp_path / "run", [], "pull_demonstrations.round=awkward")
    assert run(root, PULL).returncode == 0
    before = (root / artifacts.WRITTEN_ANSWERS).read_bytes()
    assert [row["answer"] for row in read_rows(root / artifacts.WRITTEN_ANSWERS)] == [
        words or "x" * 8000 for words in AWKWARD
    ]
    assert read_json(root / artifacts.metrics_of("pull_demonstrations"))["open"] == len(AWKWARD)
    assert run(root, PULL).returncode == 0
    assert (root / artifacts.WRITTEN_ANSWERS).read_bytes() == before


def test_without_a_round_no_server_is_asked(run, tmp_path):
    root = workspace(tmp_path / "run", [])
    assert run(root, PULL, LABEL_STUDIO_URL="http://127.0.0.1:9").returncode == 0
    assert list(read_rows(root / artifacts.WRITTEN_ANSWERS)) == []


def test_a_round_that_nobody_pushed_is_named(run, tmp_path):
    root = workspace(tmp_path / "run", [], "pull_demonstrations.round=nowhere")
    pulled = run(root, PULL)
    assert pulled.returncode == ExitCode.BAD_INPUT
    assert "no round 'nowhere'" in pulled.stderr


def test_the_command_looks_once_and_says_how_far_it_is(run, tmp_path):
    root = workspace(tmp_path / "run", [])
    row = {"messages": prompt("Why?").chat, "category": "facts", "source": "us", "license": "CC0-1.0"}
    (root / "prompts.jsonl").write_text(json.dumps(row))
    words = ("--prompts", "prompts.jsonl", "--round", "once", "--once")
    looked = run(root, PUSH, *words)
    assert looked.returncode == ExitCode.NOT_YET, looked.stderr
    assert "0 of 1 prompts have an accepted answer" in looked.stdout
    assert run(root, PUSH, *words, LABEL_STUDIO_URL="http://127.0.0.1:9").returncode == ExitCode.NOT_YET
    (root / "prompts.jsonl").write_text("{")
    assert "line 1" in run(root, PUSH, *words).stderr


def test_a_round_has_a_name_that_a_project_can_have():
    assert titles("spring 2") == ("Write answers spring 2", "Check answers spring 2")
    with pytest.raises(BadInput, match="no name for a round"):
        titles("x" * 31)

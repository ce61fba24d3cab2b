"""People rank, write and check on the labeling pages, in real Chromium."""

import hashlib
from collections.abc import Callable, Iterator

import pytest

from labeling.accounts import ensure_accounts
from labeling.assignment import plan
from labeling.client import LabelStudio, Project
from labeling.demonstrations import find
from labeling.judgement import from_result
from labeling.project import LABEL_CONFIG, Batch
from labeling.pull_demonstrations import pull
from labeling.push_demonstrations import push as push_prompts
from labeling.push_tasks import push
from pipelines.core.records import Conversation, LabelTask, Message
from tests.label_studio import Server
from tests.labeling.batches import AWKWARD, ROOT, task

pytestmark = pytest.mark.browser

LONG = "One word and more of them. " * 300
SHOWN = "[...document.querySelectorAll('[data-ranker-id]')].map(item => item.dataset.rankerId)"

LogIn = Callable[..., object]


@pytest.fixture
def log_in(label_studio: Server, chromium: object) -> Iterator[LogIn]:
    """Log in by e-mail and password as a person does; returns the page, 1280 px wide or a phone's."""
    contexts = []

    def call(email: str, password: str, phone: bool = False) -> object:
        size = {"width": 390, "height": 844} if phone else {"width": 1280, "height": 1600}
        context = chromium.new_context(viewport=size, has_touch=phone)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(180_000)
        page.goto(f"{label_studio.url}/user/login/", wait_until="domcontentloaded")
        page.fill("input[name=email]", email)
        page.fill("input[name=password]", password)
        page.click("button[type=submit]")
        page.wait_for_url(lambda url: "/login" not in url, wait_until="domcontentloaded")
        return page

    yield call
    for context in contexts:
        context.close()


def open_next(page, server: Server, project: Project) -> None:
    """Open the next task of `project` and close the instructions that come first."""
    page.goto(f"{server.url}/projects/{project.id}/data?labeling=1", wait_until="domcontentloaded")
    page.wait_for_selector(".colloquy .turn")
    page.locator(".lsf-modal-ls__body").wait_for()
    page.keyboard.press("Escape")
    page.locator(".lsf-modal-ls__body").wait_for(state="detached")


def submit(page, done: Callable[[], bool]) -> None:
    """Click Submit and wait until the server has it."""
    page.click("button[name=submit]")
    for _ in range(300):
        if done():
            return
        page.wait_for_timeout(200)
    raise AssertionError("what was submitted did not arrive")


def drag(page, origin: int, target: int) -> None:
    """Drag the response at place `origin` above the one at place `target`, as a hand does it."""
    items = page.locator(".htx-ranker-item")
    start, end = items.nth(origin).bounding_box(), items.nth(target).bounding_box()
    page.mouse.move(start["x"] + 60, start["y"] + 12)
    page.mouse.down()
    page.mouse.move(start["x"] + 60, start["y"] - 10, steps=5)
    page.mouse.move(end["x"] + 60, end["y"] + 2, steps=20)
    page.wait_for_timeout(300)
    page.mouse.up()
    page.wait_for_timeout(700)


def drag_by_finger(page, origin: int, target: int) -> None:
    """Hold the response at place `origin` and pull it above the one at place `target`, as a finger does it."""
    items = page.locator(".htx-ranker-item")
    items.nth(origin).scroll_into_view_if_needed()
    start, end = items.nth(origin).bounding_box(), items.nth(target).bounding_box()
    touch = page.context.new_cdp_session(page)

    def at(kind: str, y: float) -> None:
        points = [] if kind == "touchEnd" else [{"x": start["x"] + 60, "y": y}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        page.wait_for_timeout(20)

    at("touchStart", start["y"] + 12)
    page.wait_for_timeout(400)  # a shorter touch scrolls
    for step in range(1, 21):
        at("touchMove", start["y"] + 12 + (end["y"] + 2 - start["y"] - 12) * step / 20)
    page.wait_for_timeout(300)
    at("touchEnd", 0)
    page.wait_for_timeout(700)


def push_one(client: LabelStudio, batch_id: str, entry: LabelTask) -> Project:
    sha = hashlib.sha256(LABEL_CONFIG.read_bytes()).hexdigest()
    return push(client, Batch(batch_id, "1", sha, "human"), [entry], plan([entry.id], 0, 1, None))


def outside(page, width: int) -> list[str]:
    """The buttons that reach out of a screen of `width` px."""
    boxes = {button.inner_text(): button.bounding_box() for button in page.locator("button:visible").all()}
    return [name for name, box in boxes.items() if box["x"] < 0 or box["x"] + box["width"] > width]


def test_a_dragged_order_is_stored_as_it_was_seen(log_in, label_studio, monkeypatch):
    monkeypatch.chdir(ROOT)
    entry = task("browser", [*AWKWARD, LONG[:8000]], question="Is <b>this</b> shown & typed?")
    with LabelStudio(label_studio.url, label_studio.token) as client:
        project = push_one(client, "b" * 16, entry)
        page = log_in(label_studio.email, label_studio.password)
        open_next(page, label_studio, project)

        bodies = page.evaluate(
            "[...document.querySelectorAll('[data-ranker-id]')].map(item => [item.dataset.rankerId, "
            "item.querySelectorAll('p').length > 1 ? item.querySelector('p').textContent : ''])"
        )
        assert dict(bodies) == {completion.id: completion.text for completion in entry.completions}
        assert "Is <b>this</b> shown & typed?" in page.locator(".turn.user").inner_text()
        assert page.locator("button[name=submit]").is_disabled()

        before = page.evaluate(SHOWN)
        drag(page, 4, 0)
        after = page.evaluate(SHOWN)
        assert after == [before[4], *before[:4], before[5]]
        page.locator(".mark").nth(1).locator("label", has_text="B").click()
        page.fill("textarea[name=comment]", "because")
        submit(page, lambda: any(stored.annotations for stored in client.tasks(project.id)))

        (stored,) = client.tasks(project.id)
    (given,) = stored.annotations
    judgement = from_result(given.result, stored.data["shown_order"])
    assert judgement.ranking == tuple((name,) for name in after)
    assert judgement.response_flags == {stored.data["shown_order"][1]: ("untruthful",)}
    assert judgement.comment == "because"


def test_a_phone_shows_the_whole_page_and_ranks_by_finger(log_in, label_studio, monkeypatch):
    monkeypatch.chdir(ROOT)
    entry = task("phone", [*AWKWARD, "x" * 400], question="y" * 300)
    with LabelStudio(label_studio.url, label_studio.token) as client:
        project = push_one(client, "c" * 16, entry)
    page = log_in(label_studio.email, label_studio.password, phone=True)
    open_next(page, label_studio, project)
    assert outside(page, 390) == []
    assert {"Instructions", "Submit"} <= set(page.locator("button:visible").all_inner_texts())
    widths = page.evaluate("[...document.querySelectorAll('.colloquy *')].map(e => e.getBoundingClientRect().right)")
    assert max(widths) <= 390
    before = page.evaluate(SHOWN)
    drag_by_finger(page, 1, 0)
    assert page.evaluate(SHOWN) == [before[1], before[0], *before[2:]]


def test_an_answer_is_written_by_one_and_accepted_by_another(log_in, label_studio, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLLOQUY_HOME", str(tmp_path))
    monkeypatch.delenv("PEOPLE_FILE", raising=False)
    answer = "Use <smoke> & patience:\n\n```\nprint('bees')\n```\nنعم"
    prompt = Conversation("p", (Message("user", "How do I <calm> bees?"),), "facts", "us", "CC0-1.0")
    with LabelStudio(label_studio.url, label_studio.token) as client:
        ann, bob = ensure_accounts(client, 2, tmp_path / "labelers.json")
        push_prompts(client, "browser", [prompt])
        projects = find(client, "browser")
        page = log_in(ann.email, ann.password)
        open_next(page, label_studio, projects.write)
        assert "How do I <calm> bees?" in page.locator(".turn.user").inner_text()
        page.fill("textarea[name=answer]", answer)
        submit(page, lambda: len(pull(client, "browser")) == 1)

        push_prompts(client, "browser", [prompt])
        page = log_in(bob.email, bob.password)
        open_next(page, label_studio, projects.check)
        assert page.locator(".turn.answer").evaluate("turn => turn.lastChild.textContent") == answer
        page.locator("label", has_text="Accept").click()
        submit(page, lambda: pull(client, "browser")[0].verdict == "accepted")
        (written,) = pull(client, "browser")
    assert (written.answer, written.verdict) == (answer, "accepted")
    assert written.author != written.checker

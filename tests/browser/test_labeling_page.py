"""A person ranks on the labeling page, in real Chromium."""

import hashlib
from collections.abc import Iterator

import pytest

from labeling.assignment import plan
from labeling.client import LabelStudio
from labeling.judgement import from_result
from labeling.project import LABEL_CONFIG, Batch
from labeling.push_tasks import push
from tests.label_studio import Server
from tests.labeling.batches import AWKWARD, ROOT, task

pytestmark = pytest.mark.browser


@pytest.fixture
def page(label_studio: Server, chromium: object) -> Iterator[object]:
    """A logged-in page, 1280 px wide."""
    found = chromium.new_page(viewport={"width": 1280, "height": 1100})
    found.set_default_timeout(90_000)
    found.goto(f"{label_studio.url}/user/login/")
    found.fill("input[name=email]", label_studio.email)
    found.fill("input[name=password]", label_studio.password)
    found.click("button[type=submit]")
    found.wait_for_url(lambda url: "/login" not in url)
    yield found
    found.close()


def shown(page) -> list[str]:
    return page.evaluate("[...document.querySelectorAll('[data-ranker-id]')].map(item => item.dataset.rankerId)")


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


def test_a_dragged_order_is_stored_as_it_was_seen(page, label_studio, monkeypatch):
    monkeypatch.chdir(ROOT)
    entry = task("browser", AWKWARD, question="Is <b>this</b> shown & typed?")
    sha = hashlib.sha256(LABEL_CONFIG.read_bytes()).hexdigest()
    with LabelStudio(label_studio.url, label_studio.token) as client:
        project = push(client, Batch("b" * 16, "1", sha, "human"), [entry], plan([entry.id], 0, 1, None))

        page.goto(f"{label_studio.url}/projects/{project.id}/data?labeling=1")
        page.wait_for_selector(".htx-ranker-item")
        page.get_by_text("How to rank responses").wait_for()
        page.keyboard.press("Escape")
        page.wait_for_timeout(500)

        bodies = page.evaluate(
            "[...document.querySelectorAll('[data-ranker-id]')].map(item => [item.dataset.rankerId, "
            "item.querySelectorAll('p').length > 1 ? item.querySelector('p').textContent : ''])"
        )
        assert dict(bodies) == {completion.id: completion.text for completion in entry.completions}
        assert "Is <b>this</b> shown & typed?" in page.locator(".turn.user").inner_text()
        assert page.locator("button[name=submit]").is_disabled()

        before = shown(page)
        drag(page, 4, 0)
        after = shown(page)
        assert after == [before[4], *before[:4]]
        page.locator(".mark").nth(1).locator("label", has_text="B").click()
        page.fill("textarea[name=comment]", "because")
        page.click("button[name=submit]")
        page.wait_for_timeout(1500)

        (stored,) = client.tasks(project.id)
    (given,) = stored.annotations
    judgement = from_result(given.result, stored.data["shown_order"])
    assert judgement.ranking == tuple((name,) for name in after)
    assert judgement.response_flags == {stored.data["shown_order"][1]: ("untruthful",)}
    assert judgement.comment == "because"

"""The chat page in a real browser."""

import time
from collections.abc import Iterator

import pytest

from tests.serving.conftest import Served

pytestmark = pytest.mark.browser

ATTACK = """<img src=x onerror="document.title='owned'"> <script>document.title='owned'</script>

[click](javascript:document.title='owned') [data](data:text/html,<script>1</script>)

<a href="https://example.org" onclick="document.title='owned'">x</a> ![i](x" onerror="document.title='owned')

```html
<script>document.title='owned'</script>
```

| a | b |
|---|---|
| <b onmouseover=alert(1)>x</b> | `<svg onload=alert(1)>` |
"""


@pytest.fixture
def page(chromium, served: Served) -> Iterator[object]:
    context = chromium.new_context(viewport={"width": 1000, "height": 700})
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=served.url)
    page = context.new_page()
    page.set_default_timeout(10_000)
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda message: page.problems.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: page.problems.append(request.url) if served.url not in request.url else None)
    page.goto(served.url)
    page.locator("#about", has_text="Colloquy v7").wait_for()
    yield page
    context.close()


def ask(page, text: str) -> None:
    page.get_by_label("Your message").fill(text)
    page.keyboard.press("Enter")


def test_a_question_is_answered_and_there_after_a_reload(page, served: Served):
    ask(page, "What is the capital of France?")
    page.locator(".message.assistant .tools").wait_for()
    assert page.locator(".message.assistant .content").inner_text() == "Paris is it."
    page.get_by_role("button", name="Good answer").click()
    page.locator("[data-tool=up][aria-pressed=true]").wait_for()
    page.reload()
    page.locator("[data-tool=up][aria-pressed=true]").wait_for()
    assert page.locator(".message.user .content").inner_text() == "What is the capital of France?"
    assert page.locator("#conversations .open").inner_text() == "What is the capital of France?"
    assert page.problems == []


def test_the_footer_says_version_and_simulated_labels(page):
    assert "Colloquy v7" in page.locator("#about").inner_text()
    assert "trained on simulated labels" in page.locator("#about").inner_text()


def test_an_answers_html_is_shown_and_never_run(page, served: Served):
    served.parts.engine.answer = [ATTACK]
    ask(page, "<img src=x onerror=\"document.title='owned'\">")
    page.locator(".message.assistant .tools").wait_for()
    time.sleep(0.2)
    assert page.title().endswith("> · Colloquy")  # shown as it was written, and not run
    assert page.locator("#messages img, #messages script, #messages svg[onload], #messages [onclick]").count() == 0
    assert page.locator("#messages a").evaluate_all("links => links.map(link => link.protocol)") in ([], ["https:"])
    assert "<script>" in page.locator(".code-block code").inner_text()
    assert "<b onmouseover" in page.locator("td").first.inner_text()
    assert page.problems == []


def test_markdown_becomes_structure(page, served: Served):
    served.parts.engine.answer = [
        "# Title\n\nSome **bold**, *soft* and `code`, 2 * 3 * 4, snake_case_name.\n\n",
        "1. one\n   - inner\n2. two\n\n> said\n\n```python\nprint('a * b')\n```\n\n",
        "See [docs](https://example.org/a_b) and https://example.org/x.\n\n| a | b |\n|:--|--:|\n| 1 | 2 |\n",
    ]
    ask(page, "Show me")
    page.locator(".message.assistant .tools").wait_for()
    content = page.locator(".message.assistant .content")
    assert content.locator("h3").inner_text() == "Title"
    assert content.locator("strong").all_inner_texts() == ["bold"]
    assert content.locator("em").all_inner_texts() == ["soft"]
    assert "2 * 3 * 4, snake_case_name." in content.inner_text()
    assert content.locator("ol > li").count() == 2 and content.locator("ol ul li").inner_text() == "inner"
    assert content.locator("blockquote").inner_text() == "said"
    assert content.locator("pre code").inner_text() == "print('a * b')"
    assert content.locator("a").all_inner_texts() == ["docs", "https://example.org/x"]
    assert content.locator("td").all_inner_texts() == ["1", "2"]
    page.get_by_role("button", name="Copy", exact=True).first.click()
    assert page.evaluate("navigator.clipboard.readText()") == "print('a * b')"


def test_stop_ends_the_answer_and_keeps_what_was_shown(page, served: Served):
    served.parts.engine.answer = ["word "] * 3000
    served.parts.engine.pause_s = 0.005
    served.parts.products[0].assistant._chat = served.parts.chat.model_copy(update={"max_new_tokens": 1500})
    ask(page, "Tell me a lot")
    page.locator(".message.assistant .content", has_text="word word").wait_for()
    page.get_by_role("button", name="Stop the answer").click()
    page.locator(".notice", has_text="Stopped.").wait_for()
    assert page.get_by_role("button", name="Send").is_visible()
    deadline = time.monotonic() + 2
    while served.parts.engine.running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert served.parts.engine.running == 0
    page.reload()
    page.locator(".notice", has_text="Stopped.").wait_for()


def test_a_moderated_answer_carries_a_plain_notice(page, served: Served):
    ask(page, "I am so sad")
    page.locator(".message.moderated .notice").wait_for()
    assert "Please talk to someone." in page.locator(".message.assistant .content").inner_text()
    page.reload()
    page.locator(".message.moderated .notice").wait_for()


def test_a_refused_question_comes_back_to_the_box(page, served: Served):
    served.parts.classifier.broken = True
    ask(page, "Hello there")
    page.locator("#problem:not([hidden])").wait_for()
    assert "moderation failed" in page.locator("#problem").inner_text()
    assert page.get_by_label("Your message").input_value() == "Hello there"
    assert page.locator(".message").count() == 0


@pytest.mark.parametrize("width", [390, 1440])
def test_nothing_is_wider_than_the_screen(page, served: Served, width: int):
    served.parts.engine.answer = ["x" * 400, "\n\n```\n", "y" * 400, "\n```\n"]
    page.set_viewport_size({"width": width, "height": 800})
    ask(page, "z" * 300)
    page.locator(".message.assistant .tools").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_keyboard_reaches_everything_on_a_phone(page):
    page.set_viewport_size({"width": 390, "height": 800})
    page.get_by_role("button", name="Conversations").focus()
    page.keyboard.press("Enter")
    page.locator("body.menu-open").wait_for()
    page.keyboard.press("Escape")
    assert page.locator("body.menu-open").count() == 0
    page.locator("#new-chat").wait_for(state="hidden")  # it slides out
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.className") == "skip"

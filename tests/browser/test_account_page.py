"""Accounts and conversations on the chat page in a real browser, and what axe says of it."""

from collections.abc import Iterator

import pytest
from anyio.from_thread import start_blocking_portal
from playwright.sync_api import Route, expect

from serving.stores import sql
from serving.stores.accounts import Accounts
from tests.browser.test_chat_page import ask
from tests.serving.conftest import Served
from tests.serving.fakes import ACCESS, CHAT

pytestmark = pytest.mark.browser

EMAIL, PASSWORD = "ada@example.org", "correct horse battery"
MEMBERS_ONLY = CHAT.model_copy(update={"access": ACCESS.model_copy(update={"visitors": False})})
SERIOUS = ("serious", "critical")


def opened(chromium, served: Served, width: int = 1000) -> object:
    """A page in a context of its own: another device."""
    context = chromium.new_context(viewport={"width": width, "height": 800}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.goto(served.url)
    page.locator("#about", has_text="Colloquy v7").wait_for()
    return page


@pytest.fixture
def page(chromium, served: Served) -> Iterator[object]:
    page = opened(chromium, served)
    yield page
    assert page.problems == []
    page.context.close()


def enter(page, email: str = EMAIL, sign_up: bool = True) -> None:
    """Sign up or log in by the dialog."""
    if not page.locator("#sign-in[open]").count():
        page.get_by_role("button", name="Log in or sign up").click()
    if sign_up:
        page.get_by_role("button", name="Make an account").click()
    page.get_by_label("E-mail").fill(email)
    page.get_by_label("Password", exact=True).first.fill(PASSWORD)
    page.keyboard.press("Enter")
    page.locator("#who", has_text=email).wait_for()


def answered(page, count: int = 1) -> None:
    expect(page.locator(".message.assistant .tools")).to_have_count(count, timeout=60_000)


def titles(page) -> list[str]:
    return page.locator("#conversations .open").all_inner_texts()


def test_a_visitors_chat_is_there_after_signing_up_and_on_another_device(page, chromium, served: Served):
    ask(page, "What is the capital of France?")
    answered(page)
    enter(page)
    page.locator(".message.user", has_text="capital of France").wait_for()
    other = opened(chromium, served)
    enter(other, sign_up=False)
    other.locator("#conversations .open", has_text="capital of France").click()
    other.locator(".message.assistant", has_text="Paris is it.").wait_for()
    other.locator("#account").click()
    other.locator("#devices li").nth(1).wait_for()
    other.get_by_role("button", name="Log out: ").click()
    page.wait_for_timeout(100)
    page.reload()
    page.locator("#log-in").wait_for()
    assert titles(page) == []
    other.context.close()


def test_nothing_is_asked_before_it_is_known_who_asks(chromium, served: Served):
    context = chromium.new_context()
    page = context.new_page()
    held: list[Route] = []
    page.route("**/api/me", lambda route: held.append(route))
    with page.expect_request("**/api/me"):
        page.goto(served.url)
    page.get_by_label("Your message").fill("first")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    held[0].continue_()
    expect(page.get_by_role("button", name="Send")).to_be_enabled()
    page.keyboard.press("Enter")
    answered(page)
    ask(page, "second")
    answered(page, 2)
    context.close()


@pytest.mark.parametrize("parts", [MEMBERS_ONLY], indirect=True)
def test_without_visitors_the_page_asks_to_log_in_first(chromium, served: Served):
    page = opened(chromium, served)
    page.locator("#sign-in[open]").wait_for()
    page.keyboard.press("Escape")
    assert page.locator("#sign-in[open]").count() == 1
    enter(page)
    ask(page, "Hello")
    answered(page)
    page.context.close()


def test_a_wrong_password_is_said_in_the_dialog(page):
    enter(page)
    page.locator("#account").click()
    page.get_by_role("button", name="Log out", exact=True).click()
    page.get_by_role("button", name="Log in or sign up").click()
    page.get_by_label("E-mail").fill(EMAIL)
    page.get_by_label("Password", exact=True).first.fill("something else")
    page.keyboard.press("Enter")
    page.locator("#sign-in-problem", has_text="password is wrong").wait_for()


def test_conversations_are_searched_renamed_exported_and_deleted(page):
    for question in ("All about cats", "All about dogs"):
        page.locator("#new-chat").click()
        ask(page, question)
        answered(page)
    expect(page.locator("#conversations .open")).to_have_count(2, timeout=60_000)
    page.get_by_label("Search conversations").fill("CATS")
    expect(page.locator("#conversations .open")).to_have_count(1, timeout=60_000)
    assert titles(page) == ["All about cats"]
    page.get_by_label("Search conversations").fill("")
    expect(page.locator("#conversations .open")).to_have_count(2, timeout=60_000)
    page.get_by_role("button", name="Rename, export or delete “All about dogs”").click()
    with page.expect_download() as download:
        page.get_by_text("Export as Markdown").click()
    assert download.value.suggested_filename.endswith(".md")
    page.get_by_label("Title").fill("Only dogs")
    page.get_by_role("button", name="Rename", exact=True).click()
    page.locator("#conversations .open", has_text="Only dogs").wait_for()
    assert page.locator("#title").inner_text() == "Only dogs"
    page.get_by_role("button", name="Rename, export or delete “Only dogs”").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Delete it").click()
    expect(page.locator("#conversations .open")).to_have_count(1, timeout=60_000)
    assert titles(page) == ["All about cats"] and page.locator(".message").count() == 0


def test_a_question_is_edited_and_an_answer_given_again(page, served: Served):
    ask(page, "first")
    answered(page)
    ask(page, "second")
    answered(page, 2)
    served.parts.products[0].assistant._engine.answer = ("Lyon", ".")
    page.get_by_role("button", name="Answer again").last.click()
    page.locator(".message.assistant", has_text="Lyon.").wait_for()
    answered(page, 2)
    page.locator(".message.user").first.hover()
    page.get_by_role("button", name="Edit and ask again").first.click()
    assert page.get_by_label("Your message").input_value() == "first"
    page.get_by_label("Your message").fill("first, better")
    page.keyboard.press("Enter")
    page.locator(".message.user", has_text="first, better").wait_for()
    answered(page, 1)
    page.reload()
    answered(page, 1)
    assert page.locator(".message.user .content").all_inner_texts() == ["first, better"]


def test_a_bad_answer_takes_a_reason_and_words(page, served: Served):
    ask(page, "Hello")
    answered(page)
    page.get_by_role("button", name="Bad answer").click()
    page.get_by_role("button", name="It is incorrect").click()
    page.get_by_label("What was wrong").fill("It is Lyon.")
    page.locator(".why").get_by_role("button", name="Send").click()
    page.locator(".why").wait_for(state="detached")
    (feedback,) = served.parts.store._feedback.values()
    assert (feedback.rating, feedback.reason, feedback.feedback_text) == ("down", "incorrect", "It is Lyon.")


def test_an_account_makes_a_key_and_deletes_itself(page):
    enter(page)
    page.locator("#account").click()
    page.get_by_text("API keys").click()
    page.get_by_label("Name of the key").fill("notebook")
    page.get_by_role("button", name="Make a key").click()
    page.locator("#key-text", has_text="sk-colloquy-").wait_for()
    page.locator("#keys li", has_text="notebook").wait_for()
    page.get_by_label("Appearance").select_option("dark")
    page.locator("html[data-theme=dark]").wait_for(state="attached")
    page.get_by_text("My data").click()
    page.locator("#delete-password").fill(PASSWORD)
    page.locator("#delete-form button").click()
    page.locator("#log-in").wait_for()


def test_an_administrator_sees_the_figures(page, served: Served):
    ask(page, "something hurtful")
    answered(page)
    enter(page)

    async def grant() -> None:
        accounts = Accounts(sql.open_engine(served.parts.sql_url))
        user = await accounts.by_email(EMAIL)
        assert user is not None
        await accounts.set_admin(user.user_id, True)
        await accounts.close()

    with start_blocking_portal() as portal:
        portal.call(grant)
    page.goto(f"{served.url}/web/admin.html")
    page.locator("#flagged li", has_text="something hurtful").wait_for()
    assert "hate (input)" in page.locator("#flagged").inner_text()


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(page, served: Served, width: int, scheme: str):
    sync_playwright = pytest.importorskip("axe_playwright_python.sync_playwright")
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})

    def look(at: str) -> None:
        found = sync_playwright.Axe().run(page).response["violations"]
        bad = [(each["id"], [node["html"] for node in each["nodes"]]) for each in found if each["impact"] in SERIOUS]
        assert not bad, (at, bad)

    look("welcome")
    ask(page, "Hello")
    answered(page)
    page.get_by_role("button", name="Bad answer").click()
    look("answer")
    if width < 768:
        page.get_by_role("button", name="Conversations").click()
        page.wait_for_timeout(300)
    page.get_by_role("button", name="Rename, export or delete").click()
    look("conversation")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Log in or sign up").click()
    look("sign in")
    enter(page)
    if width < 768:
        page.get_by_role("button", name="Conversations").click()
        page.wait_for_timeout(300)
    page.locator("#account").click()
    page.locator("#devices li").wait_for()
    for closed in page.locator("details:not([open]) summary").all()[::-1]:
        closed.click()
    look("account")
    page.goto(f"{served.url}/web/admin.html")
    page.locator("#problem:not([hidden])").wait_for()
    look("administration")

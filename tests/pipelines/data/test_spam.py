"""Spam and machine-made text: planted examples fall with their reason, and texts about them stay."""

import random
from collections import Counter
from pathlib import Path

import pytest

from pipelines.core.config import load_params
from pipelines.core.jsonl import read_rows
from pipelines.core.records import Document
from pipelines.core.sections.data import MachineTextRules, SpamRules
from pipelines.data.machine_text import character_entropy, compression_ratio, loop_share, machine_text_filter
from pipelines.data.spam import keyword_share, link_share, spam_filter

ROOT = Path(__file__).parents[3]
PARAMS = load_params(ROOT / "params.yaml").prepare_corpus
PROSE = (
    "The harbour was quiet that morning, and the boats that had come in with the tide lay close to the wall. "
    "Nobody spoke while the nets were mended. A gull walked along the pier as if it had to count every plank of it. "
    "When the storm came at noon, the keeper of the light was the first to see how fast the sky turned black. "
    "By evening all of them were home, with wet boots and stories to tell. "
)
ANSWERS = [
    row["messages"][-1]["content"] for row in read_rows(ROOT / "pipelines" / "datasets" / "demonstrations.jsonl")
]
ARTICLE = "\n\n".join(ANSWERS[:60])


def document(text: str) -> Document:
    return Document(id="x", text=text, source="s", license="MIT")


def spam_reason(text: str) -> str | None:
    assert isinstance(PARAMS.spam, SpamRules)
    verdict = spam_filter(PARAMS.spam)(document(text))
    return None if verdict is True else verdict[1]


def machine_reason(text: str) -> str | None:
    assert isinstance(PARAMS.machine_text, MachineTextRules)
    verdict = machine_text_filter(PARAMS.machine_text)(document(text))
    return None if verdict is True else verdict[1]


OFFER = "Buy now and save: free shipping on every order, money-back guarantee, limited time only! " + PROSE
CHAT = "I trade from home. Message me on my channel via WhatsApp, or t.me/profits4you, and I will show you how. "
SHOP = (
    "Our cheap watches are the watches that people who love watches buy. Watches for men, watches for women, "
    "gold watches and silver watches: whoever looks for watches finds watches here. "
)
LINKS = "".join(f"More of it: https://cheap-pills-{number}.example/buy?ref={number * 7919}\n" for number in range(20))
PILLS = "Order online without any fear: no prescription, lowest price, fast and discreet parcels. " + PROSE
CASINO = "Claim your free spins today! The best online casino has a cash bonus for whoever joins. " + PROSE
JOBS = "Work from home and earn money while you sleep, no risk at all. Sign up today, places go fast. " + PROSE


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LINKS, "too many links"),
        (OFFER, "calls to action"),
        (PILLS, "calls to action"),
        (CASINO, "calls to action"),
        (JOBS, "calls to action"),
        (CHAT * 3, "contact baits"),
        (SHOP * 5, "one word too often"),
    ],
)
def test_spam_falls_with_its_reason(text: str, reason: str) -> None:
    assert spam_reason(text) == reason


@pytest.mark.parametrize(
    "text",
    [
        PROSE,
        PROSE + "See https://example.org/harbour for the map, and click here to print it.",
        PROSE * 3 + 'A clickjacking page shows a button "buy now" below the real one; a filter that knows '
        '"limited time" and "act now" finds most of such mails. ' + PROSE * 3,
        "The context menu and the context method of a context message: each text message counts. " * 2 + PROSE,
        "The session holds objects. A session begins a transaction when it first needs one. " + PROSE,
    ],
)
def test_honest_text_that_shares_words_with_spam_stays(text: str) -> None:
    assert spam_reason(text) is None


REFUSAL = "As an AI language model, I cannot write about it. I don't have personal opinions on harbours. " + PROSE
LEFTOVER = "Certainly! Here's a description of a harbour in four sentences. " + PROSE + "Regenerate response"
LETTER = "Dear [First name], we at [Your company] love [insert product]. " + PROSE
SPUN = "The {good|great|fine} harbour was {quiet|calm|silent} that {morning|day|dawn}. " + PROSE
CITIES = ("Paris", "Rome", "Oslo", "Lima", "Cairo", "Quito", "Delhi", "Sofia")
DOORWAY = "".join(f"If you look for a plumber in {city} then you have found the right page. " for city in CITIES)
LOOP = PROSE + "I do not know what to say about it, and " * 60
NOISE = random.Random(3)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
ENCODED = " ".join("".join(NOISE.choices(LETTERS, k=12)) for _ in range(120))
ALL_SYMBOLS = " ".join("".join(chr(NOISE.randrange(0xC0, 0x250)) for _ in range(5)) for _ in range(120))
TWO_LETTERS = " ".join("".join(NOISE.choices("ab", k=NOISE.randrange(2, 9))) for _ in range(200))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (REFUSAL, "phrases of an assistant"),
        (REFUSAL.replace("don't", "don’t").replace("As an AI language model", "Well"), "phrases of an assistant"),
        (LEFTOVER, "phrases of an assistant"),
        (LETTER, "template left unfilled"),
        (SPUN, "template left unfilled"),
        (PROSE + DOORWAY, "sentences from a template"),
        (LOOP, "words in a loop"),
        (PROSE * 40, "compresses unlike language"),
        (ALL_SYMBOLS, "character frequencies unlike language"),
        (ENCODED, "character frequencies unlike language"),
        (TWO_LETTERS, "character frequencies unlike language"),
    ],
)
def test_machine_text_falls_with_its_reason(text: str, reason: str) -> None:
    assert machine_reason(text) == reason


@pytest.mark.parametrize(
    "text",
    [
        PROSE,
        ARTICLE + 'Such models often begin a refusal with "As an AI language model", which tells on them. ' + PROSE,
        PROSE + "Set [your name] in the form; start the service by `service {start|stop|restart}`. " + PROSE * 4,
        PROSE + "We train BERT as a language model; as a large language model it is small. " + PROSE,
        PROSE + '"I am sorry, but I can\'t," said the keeper of the light, and turned away. ',
        "Dear Sir or Madam,\n\n" + PROSE + "\n\nYours faithfully,\n[Your name]",
        PROSE + "It rains in Paris. It rains in Rome. It rains in Oslo. " + PROSE,
        "```\nfor row in table:\n    total = total + row.price * row.count\n```\n" + PROSE,
    ],
)
def test_text_about_machines_and_templates_stays(text: str) -> None:
    assert machine_reason(text) is None


def test_the_measures_by_hand() -> None:
    assert link_share("www.a.example is it") == pytest.approx(13 / 19)
    assert keyword_share(Counter({"boat": 3, "with": 1, "and": 1, "pier": 1})) == pytest.approx(3 / 6)
    assert character_entropy("abab cdcd") == pytest.approx(2.0)
    assert loop_share("one two " * 100, 20) == 1.0
    assert loop_share("too short", 20) == 0.0
    assert compression_ratio("a" * 10_000) < 0.02


def test_the_projects_own_answers_stay() -> None:
    assert spam_reason(ARTICLE) is None
    assert machine_reason(ARTICLE) is None


def test_without_rules_the_steps_are_left_out() -> None:
    from pipelines.prepare_corpus import cleaning_steps

    names = [step.name for step in cleaning_steps(PARAMS)]
    assert names[-2:] == ["spam", "machine_text"]
    without = PARAMS.model_copy(update={"spam": None, "machine_text": None})
    assert [step.name for step in cleaning_steps(without)] == names[:-2]

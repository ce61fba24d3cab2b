"""Numbers and dates: one form where the value is beyond doubt, untouched where it is not."""

import random

import pytest

from pipelines.core.records import Document
from pipelines.data.normalization import normalize_text
from pipelines.data.notation import normalize_notation, notation_normalizer
from pipelines.data.numerals import normalize_numbers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\uff11\uff12\uff13 pages", "123 pages"),
        ("\u0663\u066b\u0661\u0664 and \u0661\u066c\u0662\u0663\u0664", "3.14 and 1234"),
        ("\u06f1\u06f4\u06f0\u06f2 years, \u0967\u0968 days", "1402 years, 12 days"),
        ("\uff11\uff12\uff1a\uff13\uff10 and \uff13\uff0e\uff11", "12:30 and 3.1"),
        ("about\u00a012\u2009345 people", "about 12345 people"),
        ("1\u202f234\u202f567.5 m", "1234567.5 m"),
        ("1\u00a0234\u00a0567 stars", "1234567 stars"),
        ("between \u22125 and \u22120.5 or \u2212.5 (\u22123)", "between -5 and -0.5 or -.5 (-3)"),
        ("on 2021\u201103\u201104, not 2021\u201303\u201305.", "on 2021-03-04, not 2021-03-05."),
        ("2021\uff0f03\uff0f04", "2021/03/04"),
    ],
)
def test_numbers_get_one_form(text: str, expected: str) -> None:
    assert normalize_text(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "03/04/2021 and 3.4.2021 and 2021.03.04",
        "1,234 or 1.234 or 1 234",
        "pages 10\u201320, 1914\u20131918, 2019\u201320",
        "5 \u2212 3 and a\u2212b and 5\u22123 and f(x) \u22123",
        "5\u00b2 and \u00bd and \u2167 and 10\u207b\u00b3",
        "\U0001d7d9 and \U0001d7cf are no plain ones",
        "2021\u201313\u201304 and 1\u20132\u20133",
        "\u201303\u201304",
    ],
)
def test_what_could_be_read_two_ways_stays(text: str) -> None:
    assert normalize_text(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "take 1\u00a0200\u00a0mg tablet",  # one of 200 mg
        "+358\u2009401\u2009234\u2009567",
        "0\u202f800\u202f123",
        "555\u202f123\u202f4567",
        "rows 1\u2009234 567",
        "12\u2009345\u201399",
    ],
)
def test_spaces_between_numbers_that_are_no_groups_stay_spaces(text: str) -> None:
    plain = text.translate(dict.fromkeys((0xA0, 0x2009, 0x202F), " "))
    assert normalize_text(text) == plain


PIECES = (
    *"0123456789", *"  ..,,::/-(x%", "\n", "\t", "\u00a0", "\u2007", "\u2009", "\u202f", "\u2010", "\u2011", "\u2013",
    "\u2212", "\ufe63", "\uff0d", "\uff11", "\uff0e", "\uff0c", "\uff1a", "\u0661", "\u066b", "\u066c", "\u2236",
    "\u200b", "\u00ad", "\u00b6", "\u0301", "e", "234", "2021", "03", "04", "1999", "\U0001d7cf", "\r", "\u2028",
)  # fmt: skip


def random_texts(count: int) -> list[str]:
    dice = random.Random(7)
    return ["".join(dice.choices(PIECES, k=dice.randrange(1, 24))) for _ in range(count)]


def test_normalizing_twice_changes_nothing_whatever_the_text() -> None:
    for text in random_texts(60_000):
        once = normalize_text(text)
        assert normalize_text(once) == once, ascii(text)


def value_digits(text: str) -> str:
    """The digits of a text in plain form, which is what a number may never lose."""
    return "".join(str(int(character)) if character.isdecimal() else "" for character in text)


def test_no_digit_is_lost_or_made_whatever_the_text() -> None:
    for text in random_texts(20_000):
        assert value_digits(normalize_numbers(text)) == value_digits(text), ascii(text)


@pytest.mark.parametrize(
    "text",
    [
        "1.2 x 10^5", "1.2 × 10⁵", "1.2×10⁵", "1.2x10^5", "1.2·10^5", "1.2 ⋅ 10^{5}", "1.2\\times10^{5}",
        "1.2 \\times 10^5", "1.2\\cdot 10^{+5}", "$1.2\\times10^{5}$", "1.2 × 10^05", "1.2\\,\\times\\,10^{5}",
        "1,2·10^5", "1.2 * 10^5",
    ],
)  # fmt: skip
def test_scientific_notation_has_one_form(text: str) -> None:
    assert normalize_notation(f"It has {text} cells.") == "It has 1.2e5 cells."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,2·10^-3", "1.2e-3"),
        ("3 × 10⁻¹² m, of −4.5 × 10^−6 s", "3e-12 m, of −4.5e-6 s"),
        ("6.022 × 10²³ mol⁻¹", "6.022e23 mol⁻¹"),
        ("(2.5 × 10^4)/n and p < 5 × 10^-8.", "(2.5e4)/n and p < 5e-8."),
        ("$n = 3\\times10^{8}$ m", "$n = 3e8$ m"),
        ("2 × 10^5 and 3 × 10^6, or 4 × 10⁻⁷ ± 5 × 10⁻⁹", "2e5 and 3e6, or 4e-7 ± 5e-9"),
        ("1.234 × 10^5 and 0,123 × 10^5", "1.234e5 and 0.123e5"),
    ],
)
def test_what_stands_around_the_number_stays(text: str, expected: str) -> None:
    assert normalize_notation(text) == expected
    assert normalize_notation(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "10^5 cells and 10⁵ cells and 10 cm × 10 cm",
        "4x^3 + 10^2 and 2·10^n and 2 × 10^{n+1} and 3 × 10ⁿ and 10^{-3}",
        "a3x10^5 and v1.2.3 × 10^5 and n × 10^5",
        "2–3 × 10^5 and 2 to 3 × 10^5 and between 2 and 3 × 10^5",
        "1.2 ± 0.1 × 10^5 and (1.2 ± 0.1) × 10^5 and 1.23(4) × 10^5 and 1.2 \\pm 0.1 \\times 10^{5}",
        "1,234 × 10^5 and 4, 5 × 10^5",
        "2 × 10^5.5 and 2 × 10^5^2 and 2 × 10⁵⁺ⁿ and 2 × 10^5m",
        "5 kg m² s⁻¹ and a 3 × 105 grid and 3 × 10 repeats",
        "x10^5 and 2 * 10**5 and 0x10 and 5 x 10 mm^2",
        "(1, 2) × 10^5 and 3 × 2 × 10^5",
    ],
)
def test_units_polynomials_ranges_and_doubtful_commas_stay(text: str) -> None:
    assert normalize_notation(text) == text


def test_only_papers_are_changed() -> None:
    change = notation_normalizer(["arxiv"])
    paper = Document(id="x", text="1.2 × 10⁵", source="arxiv", license="CC0-1.0")
    page = Document(id="y", text="1.2 × 10⁵", source="web", license="CC0-1.0")
    assert change(paper).text == "1.2e5"
    assert change(page) is page

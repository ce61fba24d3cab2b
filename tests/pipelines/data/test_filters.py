"""Quality rules: ordinary prose passes all of them, and each kind of junk fails the rule that is meant for it."""

import pytest

from pipelines.core.records import Document
from pipelines.data.filters import (
    line_shape_filter,
    stop_word_filter,
    symbol_filter,
    word_count_filter,
    word_shape_filter,
)
from pipelines.data.harm import MAX_PASSAGES, PASSAGE_CHARACTERS, harm_filter, passages
from pipelines.data.steps import Filter

PROSE = "The harbour was quiet that morning, and the boats that had come in with the tide lay close to the wall. " * 5
RULES: dict[str, Filter] = {
    "count": word_count_filter(20, 1000),
    "symbols": symbol_filter(0.1),
    "stop words": stop_word_filter(2),
    "words": word_shape_filter,
    "lines": line_shape_filter,
}


def document(text: str) -> Document:
    return Document(id="x", text=text, source="s", license="MIT")


def broken_rules(text: str) -> set[str]:
    return {name for name, keep in RULES.items() if keep(document(text)) is not True}


def test_prose_passes() -> None:
    assert broken_rules("# The harbour\n\n" + PROSE) == set()


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("Too short to have of the.", "count"),
        (PROSE * 50, "count"),
        ("#tag #more the and ... " * 20, "symbols"),
        ("alpha beta gamma delta epsilon zeta " * 10, "stop words"),
        ("12 44 91 the 17 23 5 and 61 8 " * 10, "words"),
        ("thequickbrownfoxjumpsoverthelazydog and the " * 20, "words"),
        ("- the first of them and more\n" * 10, "lines"),
        ("The story of a man that ...\n" * 10, "lines"),
    ],
)
def test_junk_fails_its_rule(text: str, rule: str) -> None:
    assert rule in broken_rules(text)


def test_an_empty_text_breaks_rules_and_no_code() -> None:
    assert "count" in broken_rules("")


def test_one_harmful_passage_drops_a_document_and_names_the_category() -> None:
    def score(texts: list[str]) -> list[dict[str, float]]:
        return [{"toxic": 0.95 if "BAD" in text else 0.1, "violence": 0.2} for text in texts]

    keep = harm_filter(score, 0.9)
    assert keep(document(PROSE)) is True
    assert keep(document("x" * (PASSAGE_CHARACTERS + 5) + "BAD")) == (False, "toxic above 0.9")


def test_a_long_text_is_scored_in_a_few_passages_over_its_whole_length() -> None:
    found = passages("".join(f"{number:>100}" for number in range(1000)))
    assert len(found) == MAX_PASSAGES
    assert found[0].strip().startswith("0")
    assert int(found[-1].split()[0]) > 850
    assert passages("") == [""]

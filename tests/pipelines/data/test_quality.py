"""Quality rules: ordinary prose passes all of them, and each kind of junk fails the rule that is meant for it."""

from pathlib import Path

import pytest

from pipelines.core.config import resolve
from pipelines.core.records import Document
from pipelines.core.sections.data import C4, FineWeb, QualityRules
from pipelines.data.harm import MAX_PASSAGES, PASSAGE_CHARACTERS, harm_filter, passages
from pipelines.data.quality import quality_steps
from pipelines.data.steps import Dropped

ROOT = Path(__file__).parents[3]
PROSE = (
    "The harbour was quiet that morning, and the boats that had come in with the tide lay close to the wall. "
    "Nobody spoke while the nets were mended. A gull walked along the pier as if it had to count every plank of it. "
    "When the storm came at noon, the keeper of the light was the first to see how fast the sky turned black. "
    "By evening all of them were home, with wet boots and stories to tell."
)
WEB = FineWeb(
    line_punct_thr=0.12, short_line_thr=0.67, short_line_length=30, char_duplicates_ratio=0.01, new_line_ratio=0.3
)
PAGES = C4(
    filter_no_terminal_punct=True,
    min_num_sentences=3,
    min_words_per_line=3,
    max_word_length=1000,
    filter_lorem_ipsum=True,
    filter_javascript=True,
    filter_curly_bracket=True,
    filter_policy=True,
    remove_citations=True,
)
DEFAULTS = QualityRules.model_validate(resolve(ROOT, "tiny", [])["prepare_corpus"]["quality"])
RULES = DEFAULTS.model_copy(update={"fineweb": WEB, "c4": PAGES})


def document(text: str) -> Document:
    return Document(id="x", text=text, source="s", license="MIT")


def broken_rules(text: str) -> dict[str, str]:
    """Step and reason of every set of rules that drops `text`."""
    results = (step.apply(document(text)) for step in quality_steps(RULES, 20, 1000))
    return {result.step: result.reason for result in results if isinstance(result, Dropped)}


def test_prose_passes() -> None:
    assert broken_rules("# The harbour\n\n" + PROSE) == {}


@pytest.mark.parametrize(
    ("text", "rule", "reason"),
    [
        ("Too short to have of the.", "gopher_quality", "short doc"),
        (PROSE * 50, "gopher_quality", "long doc"),
        ("#tag #more the and words " * 20, "gopher_quality", "too many hashes"),
        ("alpha beta gamma delta epsilon zeta " * 10, "gopher_quality", "enough stop words"),
        ("124 442 911 the 171 223 552 and 611 832 " * 10, "gopher_quality", "below alpha threshold"),
        ("thequickbrownfoxjumpsoverthelazydog and the " * 20, "gopher_quality", "above avg threshold"),
        ("- the first of them and more\n" * 10, "gopher_quality", "too many bullets"),
        ("The story of a man that ...\n" * 10, "gopher_quality", "too many end ellipsis"),
        ("The same line of the text.\n" * 10, "gopher_repetition", "dup line frac"),
        ("\n".join(f"menu {number} of the site" for number in range(20)), "fineweb", "line punct ratio"),
        (PROSE + " Lorem ipsum dolor sit amet.", "c4", "lorem ipsum"),
    ],
)
def test_junk_fails_its_rule(text: str, rule: str, reason: str) -> None:
    assert broken_rules(text)[rule] == reason


def test_lines_that_c4_cuts_out_stay_out() -> None:
    [*_, c4] = quality_steps(RULES, 20, 1000)
    kept = c4.apply(document(f"{PROSE}\nThis site uses cookies to serve you.\nOne more good sentence here."))
    assert isinstance(kept, Document)
    assert kept.text == f"{PROSE}\nOne more good sentence here."


def test_a_set_of_rules_can_be_left_out() -> None:
    nothing = QualityRules(gopher_quality=None, gopher_repetition=None, fineweb=None, c4=None)
    assert list(quality_steps(nothing, 20, 1000)) == []


def test_one_harmful_passage_drops_a_document_and_names_the_category() -> None:
    def score(texts: list[str]) -> list[dict[str, float]]:
        return [{"harassment": 0.95 if "BAD" in text else 0.1, "violence": 0.2} for text in texts]

    keep = harm_filter(score, 0.9)
    assert keep(document(PROSE)) is True
    assert keep(document("x" * (PASSAGE_CHARACTERS + 5) + "BAD")) == (False, "harassment above 0.9")


def test_a_long_text_is_scored_in_a_few_passages_over_its_whole_length() -> None:
    found = passages("".join(f"{number:>100}" for number in range(1000)))
    assert len(found) == MAX_PASSAGES
    assert found[0].strip().startswith("0")
    assert int(found[-1].split()[0]) > 850
    assert passages("") == [""]

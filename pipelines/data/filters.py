"""Quality rules of Gopher (Rae et al. 2021, appendix A), each a filter with its threshold."""

import re

from pipelines.core.records import Document
from pipelines.data.steps import Filter, Verdict

STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
MEAN_WORD_LENGTH = (3.0, 10.0)  # characters
MIN_ALPHABETIC_SHARE = 0.5  # of words with a letter; Gopher asks for 0.8 of web text, code and numbers have less
MAX_BULLET_SHARE = 0.9  # of lines
MAX_ELLIPSIS_SHARE = 0.3  # of lines
_LETTER = re.compile(r"[^\W\d_]")


def word_count_filter(min_words: int, max_words: int) -> Filter:
    """Keep documents of `min_words` to `max_words` words between spaces."""

    def keep(document: Document) -> Verdict:
        words = len(document.text.split())
        if words < min_words:
            return False, f"fewer than {min_words} words"
        return True if words <= max_words else (False, f"more than {max_words} words")

    return keep


def symbol_filter(max_ratio: float) -> Filter:
    """Keep documents with at most `max_ratio` hash signs and ellipses a word; a heading's own marks don't count."""

    def keep(document: Document) -> Verdict:
        words = [word for word in document.text.split() if word.strip("#")]
        symbols = sum(word.count("#") + word.count("...") + word.count("…") for word in words)
        return True if symbols <= max_ratio * len(words) else (False, f"more than {max_ratio} symbols a word")

    return keep


def stop_word_filter(min_stop_words: int) -> Filter:
    """Keep documents that have at least `min_stop_words` different ones of eight English function words."""

    def keep(document: Document) -> Verdict:
        found = STOP_WORDS.intersection(document.text.lower().split())
        return True if len(found) >= min_stop_words else (False, f"fewer than {min_stop_words} stop words")

    return keep


def word_shape_filter(document: Document) -> Verdict:
    """Drop tables, listings and lists of names: words too short, too long or without letters."""
    words = document.text.split()
    mean = sum(map(len, words)) / max(len(words), 1)
    shortest, longest = MEAN_WORD_LENGTH
    if not shortest <= mean <= longest:
        return False, f"mean word length outside {shortest:g} to {longest:g}"
    alphabetic = sum(1 for word in words if _LETTER.search(word))
    if alphabetic < MIN_ALPHABETIC_SHARE * len(words):
        return False, f"under {MIN_ALPHABETIC_SHARE:.0%} of words have a letter"
    return True


def line_shape_filter(document: Document) -> Verdict:
    """Drop documents that are nearly all bullets or teasers."""
    lines = [line.strip() for line in document.text.splitlines() if line.strip()]
    if sum(line.startswith(("- ", "* ", "• ")) for line in lines) > MAX_BULLET_SHARE * len(lines):
        return False, f"over {MAX_BULLET_SHARE:.0%} bullets"
    if sum(line.endswith(("...", "…")) for line in lines) > MAX_ELLIPSIS_SHARE * len(lines):
        return False, f"over {MAX_ELLIPSIS_SHARE:.0%} of lines end in an ellipsis"
    return True

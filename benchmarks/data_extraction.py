"""How much of a page's main text is kept, and how little else: the project's extraction and other libraries' on the
same pages.

    make bench NAME=data_extraction

Pages and gold text of Zyte's article extraction benchmark, from `html_extraction` of the shared data (beside the
repository, or COLLOQUY_SHARED_DATA). Token F1 is over the lower-case words of a page as a bag, then averaged over
pages. A peer that is not installed is left out.
"""

import gzip
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from pipelines.core.records import Document
from pipelines.data.extraction import extract_html
from pipelines.data.steps import Unusable

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("COLLOQUY_SHARED_DATA", ROOT.parent / "shared" / "data")) / "html_extraction"

Extract = Callable[[str], str]


class Page(NamedTuple):
    html: str
    gold: str


class Score(NamedTuple):
    f1: float
    precision: float
    recall: float


def shipped() -> Extract:
    def extract(html: str) -> str:
        try:
            return extract_html(Document(id="", text=html, source="", license="", metadata={"format": "html"})).text
        except Unusable:
            return ""

    return extract


def trafilatura() -> Extract:
    import trafilatura

    return lambda html: trafilatura.extract(html) or ""


def resiliparse() -> Extract:
    from resiliparse.extract.html2text import extract_plain_text

    return lambda html: str(extract_plain_text(html, main_content=True, alt_texts=False))


def justext() -> Extract:
    import justext

    stop_words = justext.get_stoplist("English")

    def extract(html: str) -> str:
        return "\n".join(part.text for part in justext.justext(html, stop_words) if not part.is_boilerplate)

    return extract


def token_score(text: str, gold: str) -> Score:
    """Precision, recall and F1 of the words of `text`, as a bag, against those of `gold`."""
    found, wanted = (Counter(re.findall(r"\w+", side.lower())) for side in (text, gold))
    common = (found & wanted).total()
    if not common:
        return Score(0.0, 0.0, 0.0)
    precision, recall = common / found.total(), common / wanted.total()
    return Score(2 * precision * recall / (precision + recall), precision, recall)


def read() -> list[Page]:
    golds = json.loads((DATA / "ground-truth.json").read_text(encoding="utf-8"))
    pages = []
    for name, gold in golds.items():
        html = gzip.decompress((DATA / "html" / f"{name}.html.gz").read_bytes())
        pages.append(Page(html.decode("utf-8", "replace"), gold["articleBody"]))
    return pages


def main() -> None:
    if not DATA.exists():
        print(f"{DATA} is not there: set COLLOQUY_SHARED_DATA", file=sys.stderr)
        sys.exit(2)
    pages = read()
    print(f"{len(pages)} pages{'F1':>16}{'precision':>12}{'recall':>10}{'pages/s':>10}")
    means = {}
    for name, load in [
        ("shipped", shipped),
        ("trafilatura", trafilatura),
        ("resiliparse", resiliparse),
        ("justext", justext),
    ]:
        try:
            extract = load()
        except ImportError:
            print(f"{name:<14}not installed")
            continue
        extract(pages[0].html)
        started = time.monotonic()
        texts = [extract(page.html) for page in pages]
        seconds = time.monotonic() - started
        scores = [token_score(text, page.gold) for text, page in zip(texts, pages, strict=True)]
        means[name] = mean(score.f1 for score in scores)
        precision, recall = mean(score.precision for score in scores), mean(score.recall for score in scores)
        print(f"{name:<14}{means[name]:>11.4f}{precision:>12.4f}{recall:>10.4f}{len(pages) / seconds:>10.0f}")
    figures = {"f1": round(means["shipped"], 4), "trafilatura_f1": round(means["trafilatura"], 4)}
    print(json.dumps({"name": "data_extraction", "figures": figures}))


if __name__ == "__main__":
    main()

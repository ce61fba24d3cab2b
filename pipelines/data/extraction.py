"""Main text of HTML pages as Markdown: headings, lists and code stay, menus, headers and footers go.

trafilatura without comments keeps more of the main text and less of the rest than its own default and than resiliparse,
which is many times faster; `benchmarks/data_extraction.py` shows them side by side.
"""

import re
from dataclasses import replace

from pipelines.core.records import Document
from pipelines.data.steps import Unusable

MAX_PAGE_CHARACTERS = 8 << 20  # a parse tree takes some hundred times as much memory
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)


def extract_html(document: Document) -> Document:
    """The main text of a page; a document that is no HTML stays as it is.

    Raises:
        Unusable: the page is too large, or nothing of it is main text.
    """
    if document.metadata.get("format") != "html":
        return document
    if len(document.text) > MAX_PAGE_CHARACTERS:
        raise Unusable("page larger than 8 MiB")
    import html

    from trafilatura import extract  # half a second, for nothing where no source has HTML

    text = extract(document.text, output_format="markdown", include_comments=False, deduplicate=False)
    if not text:
        raise Unusable("no main text")
    title = _TITLE.search(document.text)
    named = {"title": " ".join(html.unescape(title[1]).split())} if title else {}
    return replace(document, text=text, metadata=document.metadata | named)

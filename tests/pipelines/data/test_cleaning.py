"""HTML, markup, Unicode and language: the reader's text stays, the machinery goes."""

import pytest

from pipelines.core.records import Document
from pipelines.data.extraction import extract_html
from pipelines.data.language import identify, language_filter, sample
from pipelines.data.markup import clean_markdown, clean_markup, rst_to_markdown
from pipelines.data.normalization import normalize_text
from pipelines.data.steps import Unusable

PROSE = "A session holds the objects that were loaded, and writes the changes back when the transaction is committed. "


def document(text: str, kind: str) -> Document:
    return Document(id="x", text=text, source="s", license="MIT", metadata={"format": kind})


def test_main_text_stays_and_the_menu_goes() -> None:
    page = (
        "<html><head><title>The &amp; session</title></head>"
        "<body><nav><a href='/'>Home</a><a href='/x'>Imprint</a></nav>"
        f"<article><h1>Sessions</h1><p>{PROSE * 3}</p><pre>with Session() as s:\n    s.commit()</pre></article>"
        "<footer>Copyright, all menus reserved</footer></body></html>"
    )
    extracted = extract_html(document(page, "html"))
    assert PROSE.strip() in extracted.text
    assert "    s.commit()" in extracted.text
    assert "Imprint" not in extracted.text
    assert "Copyright" not in extracted.text
    assert extracted.metadata["title"] == "The & session"


def test_a_page_without_text_is_dropped_with_a_reason() -> None:
    with pytest.raises(Unusable, match="no main text"):
        extract_html(document("<html><body><script>start()</script></body></html>", "html"))


def test_only_pages_are_extracted() -> None:
    plain = document("a < b and <b>c</b>", "text")
    assert extract_html(plain) is plain


RST = """
:Author: somebody
:Date: $Date$

.. _caching:

=====
Cache
=====

.. index:: cache, store

Use :class:`~demo.Cache` or :doc:`the guide </guide>`; see `this page <https://example.org>`_ and ``get()``.

Details
-------

.. note:: Mind *this*.

    It matters.

For example::

    cache.get("x")

.. code-block:: python
   :linenos:

   if x:
       y()

.. image:: a.png
   :alt: A picture

.. a comment
   over two lines

After.
"""


def test_rst_becomes_prose_headings_and_code() -> None:
    text = normalize_text(rst_to_markdown(RST))
    assert text.startswith("# Cache\n")
    assert "## Details" in text
    assert "Use `demo.Cache` or the guide; see this page and `get()`." in text
    assert "Mind *this*." in text and "It matters." in text
    assert 'For example:\n\n```\ncache.get("x")\n```' in text
    assert "```\nif x:\n    y()\n```" in text
    assert text.endswith("After.")
    for gone in ("..", "Author", "index", "a.png", "comment", "linenos", "====", "caching"):
        assert gone not in text


def test_two_rules_with_nothing_between_are_no_heading() -> None:
    assert rst_to_markdown("above\n\n====\n\n====\n\nbelow") == "above\n\n====\n\n====\n\nbelow"


def test_a_text_file_counts_as_rst_only_when_it_looks_like_it() -> None:
    assert "directive" not in clean_markup(document(RST.replace("a comment", "a directive"), "text")).text
    plain = document("Dots .. and `ticks`_ in a plain letter.\n", "text")
    assert clean_markup(plain) == plain


def test_markdown_keeps_words_of_links_and_loses_pictures_and_comments() -> None:
    text = "---\ntitle: x\n---\n<!-- hidden -->See [the docs](https://a.example/b_(c)) ![badge](b.svg) now."
    assert clean_markdown(text) == "See the docs  now."


def test_unicode_has_one_form_and_nothing_visible_is_lost() -> None:
    raw = "\ufeffCafe\u0301\u00a0au\u200b lait \u00b6\r\n\r\n\r\n\r\n  indented\t\n½ kg – “ok” ﬁ 5²\x00"
    assert normalize_text(raw) == "Caf\u00e9 au lait\n\n  indented\n½ kg – “ok” ﬁ 5²"


def test_normalizing_twice_changes_nothing() -> None:
    once = normalize_text(RST + "\u00a0x\u200b")
    assert normalize_text(once) == once


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("The committee met on Tuesday and decided to postpone the vote until the spring.", "en"),
        ("Der Ausschuss traf sich am Dienstag und verschob die Abstimmung auf das Frühjahr.", "de"),
        ("Le comité s'est réuni mardi et a décidé de reporter le vote au printemps.", "fr"),
    ],
)
def test_the_language_is_found(text: str, code: str) -> None:
    assert identify(text).code == code


def test_another_language_is_dropped_with_its_name() -> None:
    keep = language_filter("en", 0.6)
    assert keep(document(PROSE, "text")) is True
    assert keep(document("Der Ausschuss traf sich am Dienstag und verschob die Abstimmung.", "text")) == (
        False,
        "language de",
    )


def test_a_long_text_is_judged_by_its_start_middle_and_end() -> None:
    text = "a" * 5000 + "b" * 5000 + "c" * 5000
    assert set(sample(text)) == {"a", "b", "c", "\n"}
    assert len(sample(text)) < 4100

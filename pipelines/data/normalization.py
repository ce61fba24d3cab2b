"""Unicode, whitespace and numbers in one form, losing nothing that a reader sees."""

import re
import unicodedata
from dataclasses import replace

from pipelines.core.records import Document
from pipelines.data.numerals import normalize_numbers

# Invisible: C0/C1 controls but tab and newline, soft hyphen, zero-width characters, direction marks, byte order mark,
# object replacement.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b\u200c\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\ufffc]"
)
_PILCROW = re.compile("\u00b6(?=[ \t\u00b6]*$)", re.MULTILINE)  # documentation generators hang it on headings
_NEWLINES = re.compile("\r\n?|\x0b|\x0c|\u0085|\u2028|\u2029")
_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_TRAILING = re.compile(r"[ \t]+$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{3,}")


def normalize_text(text: str) -> str:
    """NFC, `\\n` line ends, plain spaces and numbers, no invisible characters, at most one blank line in a row."""
    text = unicodedata.normalize("NFC", _INVISIBLE.sub("", _NEWLINES.sub("\n", text)))
    text = _SPACES.sub(" ", normalize_numbers(text))  # numbers first: some spaces tell that digits belong together
    text = _PILCROW.sub("", text)
    return _BLANK_LINES.sub("\n\n", _TRAILING.sub("", text)).strip()


def normalize(document: Document) -> Document:
    """`document` with its text normalized."""
    return replace(document, text=normalize_text(document.text))

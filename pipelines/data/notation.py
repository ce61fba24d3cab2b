"""Scientific notation of papers in one form: 1.2 × 10⁵, 1.2 x 10^5 and 1.2\\times10^{5} become 1.2e5.

Only a plain number times ten to a whole power is changed. What could mean something else stays: a power without a
factor, a variable or a sum as factor or exponent, ranges and uncertainties (2–3 × 10⁵, 1.2 ± 0.1 × 10⁵), 1,234 × 10⁵,
in which the comma may be either.
"""

import re
from collections.abc import Collection
from dataclasses import replace

from pipelines.core.records import Document
from pipelines.data.steps import Transform

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_SPACE = r"(?:[ \u00a0\u2009\u202f~]|\\[,;:! ])*"
_SCIENTIFIC = re.compile(
    r"(?P<math>\$)?(?<![\w.,^/])(?P<factor>[0-9]+(?:[.,][0-9]+)?)"
    rf"{_SPACE}(?:[xX×·⋅∙*]|\\times(?![a-z])|\\cdot(?![a-z])){_SPACE}10{_SPACE}"
    r"(?:\^ ?(?P<plain>[+\-−]?[0-9]{1,3})|\^ ?\{ ?(?P<braced>[+\-−]?[0-9]{1,3}) ?\}|(?P<raised>[⁻⁺]?[⁰¹²³⁴-⁹]{1,3}))"
    r"(?![\w^⁰¹²³⁴-⁹⁺⁻ⁿ!°'′]|[.,][0-9]|\{)(?(math)(?P<end>\$)?)"
)
_LINK = r"\$?\s*(?:[-–—−±∓+~,;:/×x·*]|\\pm|\\mp|\\times|\\cdot|\.\.\.?|…|to|and|or|through|by)\s*\$?\s*$"
# A number before the factor, to which the power may belong as well: "2–3", "1.2 ± 0.1", "4, 5", "2 to 3"; but not one
# that has a power of its own: "2 × 10^5 and 3 × 10^6".
_MORE_BEFORE = re.compile(rf"[0-9)\]}}%]{_LINK}")
_POWER_BEFORE = re.compile(rf"(?:10(?:\^ ?\{{? ?[+\-−]?[0-9]+ ?\}}?|[⁻⁺]?[⁰¹²³⁴-⁹]+)|[0-9]e-?[0-9]+)\)?{_LINK}")


def _one_form(found: re.Match[str]) -> str:
    factor = found["factor"]
    whole, comma, decimals = factor.partition(",")
    if comma and len(decimals) == 3 and len(whole) <= 3 and whole != "0":
        return found[0]  # 1,234: thousands or decimals
    before = found.string[max(0, found.start() - 32) : found.start()]
    if _MORE_BEFORE.search(before) and not _POWER_BEFORE.search(before):
        return found[0]
    exponent = found["plain"] or found["braced"] or found["raised"].translate(_SUPERSCRIPTS)
    number = f"{factor.replace(',', '.')}e{int(exponent.replace('−', '-'))}"
    # The dollar signs go when there is nothing else between them.
    return number if found["end"] else f"{found['math'] or ''}{number}"


def normalize_notation(text: str) -> str:
    """`text` with its scientific notation as `<factor>e<exponent>`."""
    return _SCIENTIFIC.sub(_one_form, text) if "10" in text else text


def notation_normalizer(papers: Collection[str]) -> Transform:
    """What gives the documents of the sources `papers` one notation; those of others stay as they are."""

    def change(document: Document) -> Document:
        return replace(document, text=normalize_notation(document.text)) if document.source in papers else document

    return change

"""What a detector of personal data is: a pattern and what its matches must fulfil; the checks that several share."""

import re
from collections.abc import Callable
from typing import NamedTuple


class Finding(NamedTuple):
    """One piece of personal data: its type and where it stands in the text."""

    kind: str
    start: int
    end: int


class Detector(NamedTuple):
    """A pattern, and what a match must fulfil beyond it; a group `value` is the part that is personal.

    A text in which none of `needs` (lower case) occurs is not searched, which costs far less than the search; without
    any every text is.
    """

    kind: str
    pattern: re.Pattern[str]
    is_real: Callable[[re.Match[str]], bool]
    needs: tuple[str, ...] = ()


def luhn_holds(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1)."""
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits))]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def digits_of(text: str) -> str:
    """`text` without everything that is no digit."""
    return re.sub(r"\D", "", text)


# "order no. ", "tracking id: ": what follows is a number of a thing, not of a person.
_NUMBER_OF_A_THING = re.compile(
    r"\b(?:orders?|invoices?|tracking|shipments?|parcels?|isbn(?:-1[03])?|issn|ean|upc|gtin|barcode|sku|serial"
    r"|batch|lot"
    r"|parts?|models?|tickets?|cases?|builds?|timestamps?|commits?|revisions?|rev|references?|ref|doi|skus?"
    r"|catalog(?:ue)?"
    r"|items?|products?|zip|postcode|postal|job|request|trace|session|transaction|receipt|licen[cs]e|patent"
    r"|docket|checksum|hash|epoch)"
    r"(?: ?(?:no\.?|number|num|nr\.?|id|ids|code|key|#))*(?: (?:is|was|of|has))?[ \t]*[:=#]?[ \t]*[\"'(#]?$",
    re.IGNORECASE,
)


def words_before(match: re.Match[str], characters: int) -> str:
    """Up to so many characters of the text that stand right before the match."""
    start = match.start()
    return match.string[max(0, start - characters) : start]


def is_of_a_thing(match: re.Match[str]) -> bool:
    """Whether the words before say that the number is that of an order, a part, a version or the like."""
    return _NUMBER_OF_A_THING.search(words_before(match, 40)) is not None

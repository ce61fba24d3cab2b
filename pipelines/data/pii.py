"""Finds and redacts personal data and secrets by pattern and check digit; each becomes a typed placeholder.

Names and street addresses have no pattern and are not found here.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from pipelines.core.records import Document


class Finding(NamedTuple):
    """One piece of personal data: its type and where it stands in the text."""

    kind: str
    start: int
    end: int


class Detector(NamedTuple):
    """A pattern, and what a match must fulfil beyond it."""

    kind: str
    pattern: re.Pattern[str]
    is_real: Callable[[re.Match[str]], bool]


def luhn_holds(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1)."""
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits))]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def iban_holds(iban: str) -> bool:
    """Whether the check digits of an IBAN without spaces are right (ISO 13616, modulo 97)."""
    rearranged = iban[4:] + iban[:4]
    return int("".join(str(int(character, 36)) for character in rearranged)) % 97 == 1


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text)


def _always(match: re.Match[str]) -> bool:
    return True


def _is_card(match: re.Match[str]) -> bool:
    digits = _digits(match[0])
    return 12 <= len(digits) <= 19 and len(set(digits)) > 1 and luhn_holds(digits)


def _is_iban(match: re.Match[str]) -> bool:
    return iban_holds(re.sub(r"\s", "", match[0]).upper())


def _is_ssn(match: re.Match[str]) -> bool:
    area, group, serial = re.split(r"[- ]", match[0])
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def _is_ip(match: re.Match[str]) -> bool:
    """An address that could be somebody's: not loopback, unspecified or a netmask, nor a version number."""
    if "::" in match[0] and not (len(match[0]) >= 6 and re.search(r"\d", match[0])):
        return False  # a::b is a name in C++
    before = match.string[max(0, match.start() - 12) : match.start()].lower()
    if re.search(r"(version|release|[<>=~]=|\bv)\s*$", before):
        return False
    try:
        address = ipaddress.ip_address(match[0])
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified or match[0].startswith("255."))


def _is_phone(match: re.Match[str]) -> bool:
    digits = _digits(match[0])
    return 9 <= len(digits) <= 15 and len(set(digits)) > 2


_EDGE = r"(?<![\w.@/-])"

# Order matters: what is found first is not looked at again, so the more certain kinds come first.
DETECTORS = (
    Detector(
        "key",
        re.compile(
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----"
            r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
            r"|\bgh[pousr]_[A-Za-z0-9]{36,}\b|\bgithub_pat_\w{50,}\b|\bglpat-[\w-]{20,}"
            r"|\bsk-(?:proj-|ant-)?[A-Za-z0-9_-]{20,}|\b[sr]k_(?:live|test)_[A-Za-z0-9]{16,}\b"
            r"|\bxox[abprs]-[A-Za-z0-9-]{10,}|\bAIza[\w-]{35}|\bhf_[A-Za-z0-9]{30,}\b|\bpypi-[\w-]{50,}"
            r"|\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}",
            re.DOTALL,
        ),
        _always,
    ),
    Detector(
        "email",
        re.compile(
            r"(?<![\w.+%-])[A-Za-z0-9][\w.+%'-]{0,63}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?\.)+[A-Za-z]{2,24}\b"
        ),
        _always,
    ),
    Detector("iban", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b"), _is_iban),
    Detector("card", re.compile(rf"{_EDGE}\d(?:[ -]?\d){{11,18}}(?![\w-]|\.\d)"), _is_card),
    Detector("ssn", re.compile(rf"{_EDGE}\d{{3}}(?P<mark>[- ])\d{{2}}(?P=mark)\d{{4}}(?![\w-]|\.\d)"), _is_ssn),
    Detector(
        "ip",
        re.compile(
            r"(?<![\w.:-])(?:(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)"
            r"|(?:[0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}(?![\w:])"
            r"|(?:[0-9a-fA-F]{1,4}:){1,6}(?::[0-9a-fA-F]{1,4}){1,6}(?![\w:]))"
        ),
        _is_ip,
    ),
    Detector(
        "phone",
        re.compile(
            # +44 20 7946 0958; (212) 555-0143, 212-555-0143, 1-212.555.0143, each with an extension or none
            r"(?<![\w.+-])(?:\+\d{1,3}(?:[ .-]?\(?\d{1,4}\)?){2,6}"
            r"|(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}(?P<sep>[ .-]))\d{3}(?(sep)(?P=sep)|[ .-])\d{4})"
            r"(?: ?(?:x|ext\.?) ?\d{1,6})?(?![\w-]|\.\d)"
        ),
        _is_phone,
    ),
)

KINDS = tuple(detector.kind for detector in DETECTORS)


def _one_kind(detector: Detector, text: str) -> Iterator[Finding]:
    for match in detector.pattern.finditer(text):
        if detector.is_real(match):
            yield Finding(detector.kind, match.start(), match.end())


def find_pii(text: str) -> list[Finding]:
    """Every piece of personal data in `text`, by position; pieces never overlap."""
    findings: list[Finding] = []
    for detector in DETECTORS:
        # What an earlier kind has found is blanked out, so that a later one can't find half of it.
        for finding in _one_kind(detector, text):
            findings.append(finding)
            text = f"{text[: finding.start]}{'_' * (finding.end - finding.start)}{text[finding.end :]}"
    return sorted(findings, key=lambda finding: finding.start)


def placeholder(kind: str) -> str:
    """What stands in the text instead."""
    return f"[{kind.upper()}]"


def redact(text: str, findings: list[Finding]) -> str:
    """`text` with a typed placeholder for each of `findings`, which are in order and don't overlap."""
    pieces = []
    end = 0
    for finding in findings:
        pieces += [text[end : finding.start], placeholder(finding.kind)]
        end = finding.end
    return "".join((*pieces, text[end:]))


def redact_document(document: Document) -> Document:
    """`document` without personal data; `metadata["redacted"]` counts what was there by kind."""
    findings = find_pii(document.text)
    if not findings:
        return document
    counts = dict(sorted(Counter(finding.kind for finding in findings).items()))
    text = redact(document.text, findings)
    return replace(document, text=text, metadata=document.metadata | {"redacted": counts})

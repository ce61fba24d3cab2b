"""Finds and redacts personal data and secrets by pattern, check digit and the words before; typed placeholders.

This is the fast part, without a model: it finds the `PATTERN_KINDS`. Names and street addresses are in `pii_analyzer`.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import replace

from pipelines.core.records import Document
from pipelines.data.detectors import Detector, Finding, digits_of, is_of_a_thing, luhn_holds, words_before
from pipelines.data.phi import PHI_DETECTORS


def iban_holds(iban: str) -> bool:
    """Whether the check digits of an IBAN without spaces are right (ISO 13616, modulo 97)."""
    rearranged = iban[4:] + iban[:4]
    return int("".join(str(int(character, 36)) for character in rearranged)) % 97 == 1


# Secrets whose own form tells them; most are documented by their issuers for secret scanning.
_TOKEN = re.compile(
    r"-----BEGIN (?P<what>[A-Z ]*PRIVATE KEY(?: BLOCK)?)-----.*?-----END (?P=what)-----"
    r"|(?<!\w)(?=[\w.:-]{15})(?:"  # looking ahead for a long word first makes the scan several times faster
    r"(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}\b"
    r"|gh[pousr]_[A-Za-z0-9]{30,}\b|github_pat_\w{22,}\b|gl(?:pat|dt|rt|ptt|oas)-[\w-]{20,}"
    r"|sk-(?:proj-|ant-|svcacct-|or-v1-)?[A-Za-z0-9_-]{20,}|(?:[spr]k_(?:live|test)|whsec)_[A-Za-z0-9]{16,}\b"
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,}|xapp-\d-[A-Za-z0-9-]{20,}|AIza[\w-]{35}|ya29\.[\w-]{20,}"
    r"|(?:hf|npm|dckr_pat|gsk|r8|glsa|rnd|lin_api|tskey-auth|figd|ntn|secret)_[A-Za-z0-9]{28,}\b|pypi-[\w-]{40,}"
    r"|do[opr]_v1_[a-f0-9]{40,}\b|shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}\b|SG\.[\w-]{16,}\.[\w-]{16,}"
    r"|key-[0-9a-f]{32}\b|(?:SK|AC)[0-9a-f]{32}\b|EAA[A-Za-z0-9]{40,}\b|sq0(?:atp|csp)-[\w-]{20,}"
    r"|\d{8,10}:AA[\w-]{32,34}|[MNO][A-Za-z0-9_-]{23,27}\.[\w-]{6}\.[\w-]{27,}"
    r"|eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,})",
    re.DOTALL,
)
# A value given to a name that says it is secret: api_key = "…", "password": "…", Authorization: Bearer …
_ASSIGNED = re.compile(r"(?:[:=]>?\s?|(?:is|earer|asic|oken) )[\"'`]?(?P<value>[\w+/.~!@#$%^&*-]{8,}={0,2})")
_SECRET_NAME = re.compile(
    r"(?:(?:key(?:[_-](?:id|base))?|secret|token|(?P<word>passw(?:or)?d|passphrase|pwd)|credential)[\"'`]?"
    r"(?: is|\s?(?::=|=>|[:=]))\s?|\b(?:Bearer|Basic|Token) )[\"'`]?$",
    re.IGNORECASE,
)


def _is_token(match: re.Match[str]) -> bool:
    return len(set(match[0])) > 6  # not "sk-xxxxxxxxxxxxxxxxxxxxxxxx"


def _is_assigned(match: re.Match[str]) -> bool:
    """A random looking value: enough different characters, digits among letters, not a path or a dotted name."""
    value = match["value"].rstrip(".")
    digits = sum(character.isdigit() for character in value)
    letters = sum(character.isalpha() for character in value)
    if len(set(value)) < 8 or digits < 2 or letters < 3 or value.count(".") > 1 or value.count("/") > len(value) // 8:
        return False
    if re.fullmatch(r"v?\d[\d.]*\w?|[a-zA-Z]+(?:[._-][a-zA-Z]+)*[._-]?\d{0,4}|[\d:.TZ+-]+", value):
        return False  # a version, a name with a number, a time
    start = match.start("value")
    name = _SECRET_NAME.search(match.string[max(0, start - 40) : start])
    return name is not None and (name["word"] is not None or len(value) >= 16)


_EMAIL = re.compile(
    r"(?<![\w.+%-])[^\W_][\w.+%'-]{0,63}@(?:[^\W_](?:[\w-]{0,62}[^\W_])?\.)+(?P<top>[^\W\d_]{2,24}|xn--[a-z0-9-]+)\b"
    r"(?!:[\w~/])"  # git@host.org:folder is a place
)
# Endings of files, and attributes in code where @ multiplies matrices.
_NOT_TOP_LEVEL = re.compile(
    r"png|jpg|jpeg|gif|svg|webp|css|js|jsx|ts|tsx|mjs|py|pyc|rb"
    r"|java|cpp|hpp|json|yaml|yml|toml|xml|html|htm|txt|csv|tar|gz|zip"
    r"|whl|exe|dll|dot|weight|weights|shape|data|value|values|bias|conj|inv|array",
    re.IGNORECASE,
)


def _is_email(match: re.Match[str]) -> bool:
    return _NOT_TOP_LEVEL.fullmatch(match["top"]) is None


# Characters in an IBAN by country (ISO 13616 registry).
_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FK FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV", 22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HU LB NI PL SV", 29: "BR EG PS QA UA", 30: "JO KW MU YE",
        31: "MT SC", 32: "LC", 33: "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip


def _iban_pattern() -> str:
    """One alternative a length, so that what follows an IBAN is never taken for a part of it."""
    by_length: dict[int, list[str]] = {}
    for country, length in _IBAN_LENGTHS.items():
        by_length.setdefault(length, []).append(country)
    return "|".join(
        rf"(?:{'|'.join(countries)})[ -]?\d[ -]?\d(?:[ -]?[A-Z0-9]){{{length - 4}}}"
        for length, countries in by_length.items()
    )


def _is_iban(match: re.Match[str]) -> bool:
    return iban_holds(re.sub(r"[\s-]", "", match[0]).upper())


# Prefixes and lengths of the card networks (ISO/IEC 7812, as the networks publish them).
_CARD = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720|220[0-4])\d{12}|3[47]\d{13}"
    r"|(?:6011|64[4-9]\d|65\d\d|62\d\d|81\d\d)\d{12,15}|3(?:0[0-59]\d|[689]\d\d)\d{10}(?:\d\d)?|35\d{14}"
    r"|(?:2131|1800)\d{11}|(?:50\d\d|5[678]\d\d|0604|6304|6390|67\d\d|60\d\d)\d{8,15}"
)


def _is_card(match: re.Match[str]) -> bool:
    digits = digits_of(match[0])
    return (
        _CARD.fullmatch(digits) is not None and len(set(digits)) > 1 and luhn_holds(digits) and not is_of_a_thing(match)
    )


_SSN_CUE = re.compile(r"\b(?:ssns?|social security|soc\.? sec|social)\b[^.;\n]{0,30}$", re.IGNORECASE)


def _is_ssn(match: re.Match[str]) -> bool:
    digits = digits_of(match[0])
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    if area in ("000", "666") or area >= "900" or group == "00" or serial == "0000" or is_of_a_thing(match):
        return False
    return match["mark"] in ("-", " ") or _SSN_CUE.search(words_before(match, 60)) is not None


_VERSION_CUE = re.compile(
    r"(?:(?:versions?|ver\.?|releases?|released|builds?|firmware|drivers?|revision|rev\.?|patch|sections?|sec\.|§"
    r"|chapters?"
    r"|clauses?|paragraphs?|figures?|tables?|appendix|oid|upgraded?|update[ds]?|downgraded?|schema|sdk|assembly|kernel)"
    r"(?: (?:number|no\.?|string|is|to|from|was|now|of))*[ \t]*[:=#(\"']*[ \t]*"
    r"|(?:[<>=~!]=|[\^~]|\bv\.?|[A-Za-z]/|@)[ ]?"
    r"|(?:versions?|section|release) v?\d+(?:\.\d+){1,3},? (?:to|and|or|through|until|-) )$",
    re.IGNORECASE,
)


def _is_ip(match: re.Match[str]) -> bool:
    """An address that could be somebody's: not loopback, unspecified or a netmask, nor a version number."""
    try:
        address = ipaddress.ip_address(match[0])
    except ValueError:
        return False
    if address.is_loopback or address.is_unspecified or match[0].startswith("255."):
        return False
    if address.version == 6:
        return len(match[0]) >= 6 and re.search(r"\d", match[0]) is not None  # a::b is a name in C++
    return _VERSION_CUE.search(words_before(match, 40)) is None


_PHONE_CUE = re.compile(
    r"(?:\b(?:tele)?(?:phones?|tel|fax|mobile|cell(?:phone)?|handy|landline|hotline|helpline|pager|whatsapp|sms"
    r"|dial|call(?:ed|ing|s)?"
    r"|ring|rang|texted|text|voicemail|reach(?:ed|able)?|contact|extension)\b|[☎📞📱✆])[^;\d]{0,40}$",
    re.IGNORECASE,
)


def _is_phone(match: re.Match[str]) -> bool:
    """7 to 15 digits (ITU-T E.164); a form that not only phones have needs a word before it that says phone."""
    number = match["number"]
    digits = digits_of(number)
    if not 7 <= len(digits) <= 15 or len(set(digits)) <= 2 or is_of_a_thing(match):
        return False
    if re.fullmatch(r"[+]?\d+\.\d{5,}|(?:19|20)\d\d([-./ ])\d\d\1\d\d|\d\d([-./ ])\d\d\2(?:19|20)\d\d", number):
        return False  # a decimal number, a date
    if match["sure"] and len(digits) >= 9:
        return True
    before = words_before(match, 60)
    return _PHONE_CUE.search(before) is not None and _VERSION_CUE.search(before) is None


_EDGE = r"(?<![\w.@/+-])(?<!\d[,:])"
_END = r"(?![\w@/-]|[.,:]\d)"
_EXTENSION = r"(?: ?(?:x|ext\.?|extension|#) ?\d{1,6})?"

# Order matters: what is found first is not looked at again, so the more certain kinds come first.
DETECTORS = (
    Detector("key", _TOKEN, _is_token),
    Detector("email", _EMAIL, _is_email),
    Detector("key", _ASSIGNED, _is_assigned),
    Detector("iban", re.compile(rf"(?<![\w-])(?:{_iban_pattern()})(?![\w])"), _is_iban),
    Detector("card", re.compile(rf"{_EDGE}\d(?:[ .-]?\d){{11,18}}(?![\w@/]|-\w|[.,:]\d)"), _is_card),
    Detector("ssn", re.compile(rf"{_EDGE}\d{{3}}(?P<mark>[-. ]?)\d{{2}}(?P=mark)\d{{4}}{_END}"), _is_ssn),
    Detector(
        "ip",
        re.compile(
            r"(?<![\w.:-])(?:(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\w)"
            r"|(?=[0-9a-fA-F:]*:[0-9a-fA-F:]*:)[0-9a-fA-F:]{2,39}(?:(?<=:)(?:\d{1,3}\.){3}\d{1,3})?(?![\w:]))"
        ),
        _is_ip,
    ),
    *PHI_DETECTORS,
    Detector(
        "phone",
        re.compile(
            r"(?<![\w.+/@=-])(?<!\d[ ,:])(?P<number>(?P<sure>"
            r"(?:\+|00)[1-9]\d{0,2}(?:[ ./-]?\(?\d{1,5}\)?){2,6}"  # +44 20 7946 0958
            r"|(?:00?1[ .-]?|\+?1[ .-]?)?(?:\(\d{3}\)[ -]?|\d{3}(?P<sep>[ .-]))\d{3}(?(sep)(?P=sep)"
            r"|[ .-])\d{4}"  # (212) 555-0143
            r"|\(0\d{2,4}\) ?\d{3,4}[ -]?\d{3,4}|0[1-9]\d{0,3}[ /-]\d{2,4}(?:[ -]\d{2,4}){1,3}|0\d{2,4}[ /-]\d{6,8}"
            r"|0[1-9](?P<gap>[ .])\d\d(?:(?P=gap)\d\d){3})"  # 06 12 34 56 78
            r"|\(?\d{1,5}\)?(?:[ ./-]?\(?\d{1,5}\)?){1,6})"
            rf"{_EXTENSION}(?![\w@/-]|[.,:]\d)"
        ),
        _is_phone,
    ),
)

PATTERN_KINDS = tuple(dict.fromkeys(detector.kind for detector in DETECTORS))
KINDS = (*PATTERN_KINDS, "person", "address")


def _one_kind(detector: Detector, text: str) -> Iterator[Finding]:
    group = "value" if "value" in detector.pattern.groupindex else 0
    for match in detector.pattern.finditer(text):
        if detector.is_real(match):
            yield Finding(detector.kind, *match.span(group))


def blank(text: str, findings: list[Finding]) -> str:
    """`text` with underscores for each of `findings`: as long as before, and with nothing to find there."""
    pieces = []
    end = 0
    for finding in findings:
        pieces += [text[end : finding.start], "_" * (finding.end - finding.start)]
        end = finding.end
    return "".join((*pieces, text[end:]))


def find_pii(text: str, kinds: Collection[str] = PATTERN_KINDS) -> list[Finding]:
    """Every piece of personal data of the pattern kinds in `kinds`, by position; pieces never overlap."""
    findings: list[Finding] = []
    lowered = text.lower()
    for detector in DETECTORS:
        if detector.needs and not any(word in lowered for word in detector.needs):
            continue
        if found := list(_one_kind(detector, text)):
            # What an earlier kind has found is blanked out, so that a later one can't find half of it.
            text = blank(text, found)
            findings += found
    return sorted((finding for finding in findings if finding.kind in kinds), key=lambda finding: finding.start)


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


def redacted_document(document: Document, findings: list[Finding]) -> Document:
    """`document` without `findings`; `metadata["redacted"]` counts what was there by kind."""
    if not findings:
        return document
    counts = dict(sorted(Counter(finding.kind for finding in findings).items()))
    text = redact(document.text, findings)
    return replace(document, text=text, metadata=document.metadata | {"redacted": counts})

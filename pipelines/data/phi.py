"""Finds health information that names a patient: record, plan and provider numbers, and dates of birth.

They are among the identifiers that the HIPAA Privacy Rule lists (45 CFR 164.514(b)(2)). Most have no form of their own,
so that the words right before decide; NPI has a check digit, and MBI a form that hardly anything else has.
"""

import re

from pipelines.data.detectors import Detector, digits_of, is_of_a_thing, luhn_holds, words_before

_NUMBER = r"(?:[ _-]?(?:no|num|number|nr|id|ids|identifier|identification|code|#)\b\.?|[ _-]?#)"
# From the words to the value: "(MRN): ", " is ", " | ", "=".
_LINK = r"(?: ?\([A-Za-z. ]{2,20}\))?(?: (?:is|was|of|has been))?[\"'*`]*\s?[:=#|-]?[:=|]?\s{0,2}[\"'(#*`]{0,3}"
# Digits, five or more, among capitals and dashes.
_ID = r"(?P<value>(?-i:(?=(?:[A-Z-]{0,4}\d){5})[A-Z0-9](?:[A-Z0-9]|-(?=[A-Z0-9])){4,18}))(?![\w@-]|[.:/,]\w)"
_DATE_LIKE = re.compile(r"(?:19|20)\d\d-\d\d-\d\d|\d\d-\d\d-(?:19|20)\d\d")


def _after(words: str) -> re.Pattern[str]:
    """An id right after `words`."""
    return re.compile(rf"\b(?:{words}){_LINK}{_ID}", re.IGNORECASE)


def _is_id(match: re.Match[str]) -> bool:
    return len(digits_of(match["value"])) <= 14 and _DATE_LIKE.fullmatch(match["value"]) is None


_HEALTH_WORDS = (
    "insur", "health", "medic", "dental", "patient", "coverage", " hmo", " ppo", "blue cross", "blue shield", "aetna",
    "cigna", "humana", "payer",
)  # fmt: skip
_OTHER_INSURANCE = re.compile(
    r"\b(?:car|auto|vehicle|motor|home|house|travel|life|national|social|liability|pet|boat) $", re.IGNORECASE
)


def _is_plan_id(match: re.Match[str]) -> bool:
    """Clubs and newspapers have members and subscribers too, so that these words need health around them."""
    before = words_before(match, 100)
    context = f"{before}{match[0]}".lower()
    if _OTHER_INSURANCE.search(before) or not any(word in context for word in _HEALTH_WORDS):
        return False
    return _is_id(match) and not is_of_a_thing(match)


def npi_holds(digits: str) -> bool:
    """Whether ten digits are a National Provider Identifier: Luhn with the prefix 80840 (45 CFR 162.406)."""
    return len(digits) == 10 and digits[0] in "12" and luhn_holds(f"80840{digits}")


_NPI_CUE = re.compile(
    r"\b(?:NPI|national provider id(?:entifier)?|provider (?:id(?:entifier)?|number|no))\b[^.;\n\d]{0,25}$",
    re.IGNORECASE,
)


def _is_npi(match: re.Match[str]) -> bool:
    """One number in ten passes the check digit, and times in seconds look the same, so that a word before is needed."""
    return npi_holds(match[0]) and _NPI_CUE.search(words_before(match, 60)) is not None


def _is_mbi(match: re.Match[str]) -> bool:
    return not is_of_a_thing(match)


_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
    r"|Nov(?:ember)?|Dec(?:ember)?)\.?"
)
_YEAR = r"(?:1[89]|20)\d\d"
_DATE = (
    rf"{_YEAR}(?P<mark>[-/.])\d{{1,2}}(?P=mark)\d{{1,2}}|\d{{1,2}}(?P<stop>[-/.])\d{{1,2}}(?P=stop)(?:{_YEAR}|\d\d)"
    rf"|{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?,? {_YEAR}|\d{{1,2}}(?:st|nd|rd|th)?(?: of)? {_MONTH},? {_YEAR}"
    rf"|\d{{1,2}}-{_MONTH}-{_YEAR}"
)
_PATIENT = re.compile(r"\b(?:patients?|pt|inpatient|outpatient)\b[^\n]*$", re.IGNORECASE)


def _is_birth_date(match: re.Match[str]) -> bool:
    """ "Born on" is history unless a patient is spoken of."""
    return match["born"] is None or _PATIENT.search(words_before(match, 60)) is not None


_MBI_LETTER = "[AC-HJKMNP-RT-Y]"  # all but S, L, O, I, B and Z
_MBI_EITHER = "[AC-HJKMNP-RT-Y0-9]"

PHI_DETECTORS = (
    Detector(
        "mbi",  # Medicare Beneficiary Identifier, as the CMS publishes its form
        re.compile(
            rf"(?<![\w-])[1-9]{_MBI_LETTER}{_MBI_EITHER}\d(?P<dash>-?){_MBI_LETTER}{_MBI_EITHER}\d(?P=dash)"
            rf"{_MBI_LETTER}{{2}}\d\d(?![\w-])"
        ),
        _is_mbi,
    ),
    Detector(
        "npi",
        re.compile(r"(?<![\w.-])[12]\d{9}(?![\w-]|\.\d)"),
        _is_npi,
        needs=("npi", "provider"),
    ),
    Detector(
        "mrn",
        _after(rf"(?:MRN(?![A-Z])|med(?:ical)?\.?[ -]?rec(?:ord)?s?\.?|(?:hospital|chart)(?={_NUMBER})){_NUMBER}*"),
        _is_id,
        needs=("mrn", "medical", "med rec", "med. rec", "hospital", "chart"),
    ),
    Detector(
        "patient_id",
        _after(rf"(?:patient(?:'s)?|pt\.?)(?: account)?{_NUMBER}+"),
        _is_id,
        needs=("patient", "pt id", "pt no", "pt#", "pt #", "pt. "),
    ),
    Detector(
        "health_plan",
        _after(
            r"(?:(?:health|medical|dental)[ -]?(?:care )?(?:plan|insurance)|medicaid|medicare|insurance|member"
            rf"|subscriber|beneficiary)(?: (?:member|subscriber|beneficiary|policy|card|claim|group))?{_NUMBER}+"
        ),
        _is_plan_id,
        needs=_HEALTH_WORDS,
    ),
    Detector(
        "birth_date",
        re.compile(
            r"\b(?:d\.?o\.?b\b\.?|(?:date[ _]of[ _]birth|birth[ _]?date)|(?P<born>born)(?: on)?(?: the)?)"
            r"(?: ?\([A-Za-z/. -]{2,12}\))?(?: (?:is|was))?[\"'*`]*\s?[:=|,-]?\s{0,2}[\"'(*`]{0,3}"
            rf"(?P<value>{_DATE})(?!\d|[-/.]\d)",
            re.IGNORECASE,
        ),
        _is_birth_date,
        needs=("birth", "dob", "d.o.b", "born"),
    ),
)

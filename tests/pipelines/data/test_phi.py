"""Health information: numbers and dates that name a patient, and what only looks like them."""

import random

import pytest

from pipelines.core.records import Document
from pipelines.data.phi import PHI_DETECTORS, npi_holds
from pipelines.data.pii import PATTERN_KINDS, find_pii, redact
from pipelines.data.pii_analyzer import redactor

KINDS = [detector.kind for detector in PHI_DETECTORS]


def cleaned(text: str) -> str:
    return redact(text, find_pii(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MRN: 00483920, seen today", "MRN: [MRN], seen today"),
        ("Medical record number (MRN) is A-204817.", "Medical record number (MRN) is [MRN]."),
        ("med rec #5829104", "med rec #[MRN]"),
        ("MRN 555-123-4567", "MRN [MRN]"),
        ("hospital no. H93847561", "hospital no. [MRN]"),
        ("Patient ID: P-2039184", "Patient ID: [PATIENT_ID]"),
        ('{"patient_id": "PT0048213"}', '{"patient_id": "[PATIENT_ID]"}'),
        ("patient account number 77120934", "patient account number [PATIENT_ID]"),
        ("Health plan member ID: XEH123456789", "Health plan member ID: [HEALTH_PLAN]"),
        ("insurance ID W204817365", "insurance ID [HEALTH_PLAN]"),
        ("Medicaid no. AB12345C", "Medicaid no. [HEALTH_PLAN]"),
        ("Aetna PPO, subscriber #: 204-817-365", "Aetna PPO, subscriber #: [HEALTH_PLAN]"),
        ("NPI 1234567893", "NPI [NPI]"),
        ("National Provider Identifier (NPI): 1245319599.", "National Provider Identifier (NPI): [NPI]."),
        ("Medicare 1EG4-TE5-MK73", "Medicare [MBI]"),
        ("beneficiary 1EG4TE5MK73.", "beneficiary [MBI]."),
        ("DOB: 03/14/1962", "DOB: [BIRTH_DATE]"),
        ("Date of birth 14 March 1962, male", "Date of birth [BIRTH_DATE], male"),
        ("date_of_birth=1962-03-14", "date_of_birth=[BIRTH_DATE]"),
        ("D.O.B. March 14, 1962.", "D.O.B. [BIRTH_DATE]."),
        ("The patient, born on 14.03.1962, was admitted.", "The patient, born on [BIRTH_DATE], was admitted."),
    ],
)
def test_what_names_a_patient_becomes_a_placeholder(text: str, expected: str) -> None:
    assert cleaned(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "mRNA 12345 and MRNA12345",
        "version 1.2345.6 of the medical record system 2021",
        "order number 1234567893 and invoice 20481736",
        "the timestamp 1234567893 and NPI 1234567890",
        "provider: 1234567893 rows",
        "commit d41d8cd98f00b204e9800998ecf8427e",
        "patient number 12 of 300; patients 10000 to 20000",
        "member ID 20481736 of the chess club",
        "car insurance policy number 204817365",
        "serial no. 1EG4TE5MK73",
        "key 1SG4-TE5-MK73 has a letter that MBI never has",
        "Darwin was born on 12 February 1809 in Shrewsbury.",
        "updated on 03/14/1962; the date of birth is a required field",
        "birth_date = models.DateField()",
        "chart 12345678 and hospital 20481736",
        "the patient record 2021-03-04",
        "ISBN 9780306406157 and EAN 4006381333931",
        "RFC 12345 and port 15432",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert cleaned(text) == text


def test_check_digit_of_providers() -> None:
    assert npi_holds("1234567893") and not npi_holds("1234567890")
    assert not npi_holds("3234567896") and not npi_holds("123456789")


def test_most_numbers_without_the_check_digit_stay() -> None:
    dice = random.Random(4)
    numbers = [f"{dice.randrange(10**9, 3 * 10**9)}" for _ in range(500)]
    found = sum(cleaned(f"NPI: {number}") == "NPI: [NPI]" for number in numbers)
    assert found == sum(npi_holds(number) for number in numbers)
    assert 0 < found < 100


def test_the_kinds_are_patterns_that_can_be_chosen_one_by_one() -> None:
    assert set(KINDS) < set(PATTERN_KINDS)
    document = Document(id="x", text="MRN 00483920, DOB 03/14/1962", source="s", license="MIT")
    assert redactor(["birth_date"])(document).text == "MRN 00483920, DOB [BIRTH_DATE]"


def test_nothing_is_found_in_what_was_redacted() -> None:
    text = (
        "MRN 00483920, patient ID P-2039184, NPI 1234567893, DOB 03/14/1962, health plan id W204817365, 1EG4-TE5-MK73"
    )
    assert sorted(finding.kind for finding in find_pii(text)) == sorted(KINDS)
    assert find_pii(cleaned(text)) == []

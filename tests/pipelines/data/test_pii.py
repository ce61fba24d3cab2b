"""Personal data: what is found, what only looks like it, and what stands there afterwards."""

import json
import random
from pathlib import Path

import pytest

from pipelines.core.records import Document
from pipelines.data.pii import PATTERN_KINDS, find_pii, iban_holds, luhn_holds, redact
from pipelines.data.pii_analyzer import redactor


def kinds(text: str) -> list[str]:
    return [finding.kind for finding in find_pii(text)]


def cleaned(text: str) -> str:
    return redact(text, find_pii(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write to Jane.Doe+news@mail.example.co.uk.", "Write to [EMAIL]."),
        ("Card 4111 1111 1111 1111, thanks", "Card [CARD], thanks"),
        ("amex 378282246310005", "amex [CARD]"),
        ("SSN: 078-05-1120.", "SSN: [SSN]."),
        ("IBAN GB82 WEST 1234 5698 7654 32 please", "IBAN [IBAN] please"),
        ("IBAN DE89370400440532013000.", "IBAN [IBAN]."),
        ("from 192.168.10.24 to 8.8.8.8:53", "from [IP] to [IP]:53"),
        ("at 2001:db8:0:1:1:1:1:1 and 2001:db8::ff00:42:8329", "at [IP] and [IP]"),
        ("Call (212) 555-0143 or 212-555-0187 x12.", "Call [PHONE] or [PHONE]."),
        ("Call +44 20 7946 0958 now", "Call [PHONE] now"),
        ("id AKIAIOSFODNN7EXAMPLE", "id [KEY]"),
        ("token ghp_" + "a1B2" * 9, "token [KEY]"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "[KEY]"),
    ],
)
def test_personal_data_becomes_a_placeholder(text: str, expected: str) -> None:
    assert cleaned(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "version 4.2.1.17 of the library",
        "demo==1.2.3.4",
        "127.0.0.1 and 0.0.0.0 and 255.255.255.0",
        "order 4111 1111 1111 1112",
        "build 20261120123456",
        "0000 0000 0000 0000",
        "666-12-3456 and 000-12-3456",
        "GB82 WEST 1234 5698 7654 33",
        "300.1.2.3",
        "d41d8cd98f00b204e9800998ecf8427e",
        "the range 10-20-3000 of 2026-11-20 12:30:45",
        "@decorator and user at example",
        "std::vector<int> and a::b",
        "3.14159265358979",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert cleaned(text) == text


def test_check_digits() -> None:
    assert luhn_holds("79927398713") and not luhn_holds("79927398710")
    assert iban_holds("GB82WEST12345698765432") and not iban_holds("GB82WEST12345698765431")


def test_findings_are_in_order_and_never_overlap() -> None:
    findings = find_pii("a@b.example 4111111111111111 1.2.3.4 +1 212 555 0143 c@d.example")
    assert [finding.kind for finding in findings] == ["email", "card", "ip", "phone", "email"]
    assert all(one.end <= two.start for one, two in zip(findings, findings[1:], strict=False))


def test_nothing_is_found_in_what_was_redacted() -> None:
    text = "a@b.example, 4111111111111111, 078-05-1120, 8.8.8.8, +1 212 555 0143, AKIAIOSFODNN7EXAMPLE"
    assert set(kinds(text)) < set(PATTERN_KINDS)
    assert kinds(cleaned(text)) == []


def test_a_document_says_what_was_taken_out() -> None:
    redact_document = redactor(["email"])
    document = Document(id="x", text="a@b.example and c@d.example", source="s", license="MIT", metadata={"path": "p"})
    assert redact_document(document).metadata == {"path": "p", "redacted": {"email": 2}}
    clean = Document(id="x", text="nothing but 8.8.8.8", source="s", license="MIT")
    assert redact_document(clean) is clean


def test_generated_rows_are_found_among_look_alikes() -> None:
    generator = random.Random(20)

    def card() -> str:
        digits = "4" + "".join(str(generator.randrange(10)) for _ in range(14))
        return digits + next(str(last) for last in range(10) if luhn_holds(digits + str(last)))

    def ssn() -> str:
        area = generator.choice([number for number in range(1, 900) if number != 666])
        return f"{area:03}-{generator.randrange(1, 100):02}-{generator.randrange(1, 10000):04}"

    makers = {
        "card": card,
        "ssn": ssn,
        "ip": lambda: ".".join(str(generator.randrange(1, 224)) for _ in range(4)),
        "email": lambda: f"u{generator.randrange(10**6)}@host{generator.randrange(99)}.example",
        "phone": lambda: f"({generator.randrange(200, 999)}) 555-{generator.randrange(10000):04}",
    }
    for kind, make in makers.items():
        found = sum(
            kinds(f"Contact row {generator.randrange(10)}: {make()} (ref {generator.getrandbits(64):016x})") == [kind]
            for _ in range(200)
        )
        assert found >= 196, kind


def test_published_examples_are_found() -> None:
    path = Path(__file__).parents[4] / "shared" / "data" / "pii_presidio" / "synth_dataset_v2.json"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    gold = {"EMAIL_ADDRESS": "email", "CREDIT_CARD": "card", "US_SSN": "ssn"}
    wanted = found = 0
    for row in json.loads(path.read_text()):
        findings = find_pii(row["full_text"])
        for span in row["spans"]:
            if kind := gold.get(span["entity_type"]):
                wanted += 1
                found += any(one.kind == kind and one.start <= span["start_position"] < one.end for one in findings)
    assert wanted > 100
    assert found / wanted >= 0.98

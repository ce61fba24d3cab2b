"""Personal data: what is found, what only looks like it, and what stands there afterwards."""

import json
import random
from pathlib import Path

import pytest

from pipelines.core.errors import BadInput
from pipelines.core.records import Document
from pipelines.data.detectors import Finding, luhn_holds
from pipelines.data.pii import KINDS, PATTERN_KINDS, find_pii, iban_holds, redact
from pipelines.data.pii_analyzer import first_come, load_finder, redactor
from pipelines.data.street_addresses import find_addresses, load_countries


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
        ("api_key = 'a8Fk29dLq0Zx71Pw3m'", "api_key = '[KEY]'"),
        ("Authorization: Bearer 9fK3lPq0x7Zc41vBn2", "Authorization: Bearer [KEY]"),
        ("> 10.0.0.7", "> [IP]"),
        ("IBAN ES9121000418450200051332 BANK", "IBAN [IBAN] BANK"),
        ("tel. 06 12 34 56 78 or 0171 2345678", "tel. [PHONE] or [PHONE]"),
        ("phone: 5550143", "phone: [PHONE]"),
        ("social security number 078051120", "social security number [SSN]"),
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
        "order 4111 1111 1111 1111",
        "timestamp 1714178561492 and ISBN 978-0-306-40615-7",
        "git@github.com:org/repository.git",
        "y = a@b.weights",
        "token = my_own_token",
        "call 3 times, rows 721-827 of 7123186",
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


@pytest.fixture(scope="module")
def find_names():
    return load_finder(["person", "address"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I told Beatrice that Ingrid Sørensen called.", "I told [PERSON] that [PERSON] called."),
        ("Dear Dr. Okonkwo, thank you.", "Dear Dr. [PERSON], thank you."),
        ("my name is jürgen and i need help", "my name is [PERSON] and i need help"),
        ("He lives at 27 Karaka Bay Road, Wellington 6022.", "He lives at [ADDRESS]."),
        ("Write to Lindenstraße 44, 10969 Berlin!", "Write to [ADDRESS]!"),
        ("The box is P.O. Box 5512, Tulsa, OK 74105.", "The box is [ADDRESS]."),
        ("12, rue des Lilas, 69003 Lyon", "[ADDRESS]"),
    ],
)
def test_names_and_street_addresses_become_placeholders(find_names, text: str, expected: str) -> None:
    assert redact(text, find_names(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Use the Django admin, then click Save. Flask and Rails differ.",
        "The Content-Type header of HTTP responses; see Section 4.",
        "New in version 4: query sets return named tuples.",
        "Store 12 files on Google Drive or in Python 3.",
    ],
)
def test_technical_prose_has_no_names_or_addresses(find_names, text: str) -> None:
    assert find_names(text) == []


def test_an_address_goes_on_over_lines_to_its_country() -> None:
    text = "Send it to\n1200 Koivukatu 7 Apt. 210\nTampere\n Finland 33100\nThanks"
    assert [text[one.start : one.end] for one in find_addresses(text, load_countries())] == [text[11:-7]]


def test_the_more_certain_of_two_that_overlap_stays() -> None:
    address, person, email = Finding("address", 5, 20), Finding("person", 8, 12), Finding("email", 0, 4)
    assert first_come([address, person, email]) == [email, address]


def test_kinds_that_are_not_asked_for_stay() -> None:
    document = Document(id="x", text="a@b.example, 8.8.8.8, 12 Elm Street", source="s", license="MIT")
    assert redactor(["address", "ip"])(document).text == "a@b.example, [IP], [ADDRESS]"


def test_presidio_adds_kinds_by_name_and_an_unknown_one_is_refused() -> None:
    text = "NHS number 943 476 5919, mail a@b.example"
    assert [one.kind for one in load_finder(["email", "UK_NHS"])(text)] == ["UK_NHS", "email"]
    with pytest.raises(BadInput, match=r"NO_SUCH.*person"):
        load_finder([*KINDS, "NO_SUCH"])

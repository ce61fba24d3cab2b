"""Recall and precision of the detection of personal data, by type, and what it costs on technical prose.

    make bench NAME=data_pii

Rows: `pii_presidio` of the shared data, and 300 generated rows a type with one value each (names and addresses aside),
among look-alikes (versions, order numbers, hashes, dates, ISBNs, timestamps), and as many rows with look-alikes alone.
A labelled span counts as found if findings of its type cover at least half of it; a finding is right if it touches a
span of its type and at least half of its letters and digits are labelled so. The published set labels one address in
pieces, its town (GPE) and code (ZIP_CODE) apart: these count as parts of the address that they stand in.
"""

import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import files
from pathlib import Path
from typing import NamedTuple

from faker import Faker

from pipelines.data.detectors import Finding, luhn_holds
from pipelines.data.pii import KINDS, PATTERN_KINDS, find_pii
from pipelines.data.pii_analyzer import load_finder

SHARED = Path(os.environ.get("COLLOQUY_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
SEED = 4711
ROWS = 300  # a type, with a value; and as many without
LIMITS = dict.fromkeys(PATTERN_KINDS, (0.98, 0.95)) | dict.fromkeys(("person", "address"), (0.85, 0.70))
PRESIDIO = {
    "EMAIL_ADDRESS": "email",
    "CREDIT_CARD": "card",
    "US_SSN": "ssn",
    "PHONE_NUMBER": "phone",
    "IBAN_CODE": "iban",
    "IP_ADDRESS": "ip",
    "PERSON": "person",
    "STREET_ADDRESS": "address",
}
PHONE_LOCALES = (
    "en_US",
    "en_GB",
    "en_AU",
    "en_CA",
    "en_IN",
    "de_DE",
    "fr_FR",
    "es_ES",
    "it_IT",
    "nl_NL",
    "sv_SE",
    "pl_PL",
)
IBAN_LOCALES = (
    "en_GB",
    "de_DE",
    "fr_FR",
    "es_ES",
    "it_IT",
    "nl_NL",
    "pl_PL",
    "pt_PT",
    "de_AT",
    "de_CH",
    "fi_FI",
    "no_NO",
)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
DIGITS = "0123456789"


class Labelled(NamedTuple):
    """A text, the personal data in it, and what may be taken with an address."""

    text: str
    gold: list[Finding]
    beside: list[Finding]


def drawn(dice: random.Random, alphabet: str, length: int) -> str:
    return "".join(dice.choices(alphabet, k=length))


def makers(dice: random.Random) -> dict[str, Callable[[], str]]:
    """For each type, what draws a value."""
    Faker.seed(SEED)
    english = Faker("en_US")
    phones = [Faker(locale) for locale in PHONE_LOCALES]
    banks = [Faker(locale) for locale in IBAN_LOCALES]

    def card() -> str:
        digits = english.credit_card_number()
        mark = dice.choice(("", "", " ", "-"))
        cuts = (4, 10, len(digits)) if len(digits) == 15 else range(4, len(digits) + 4, 4)
        starts = (0, *cuts[:-1]) if len(digits) == 15 else range(0, len(digits), 4)
        return mark.join(digits[start:cut] for start, cut in zip(starts, cuts, strict=True))

    def iban() -> str:
        value = dice.choice(banks).iban()
        return value if dice.random() < 0.5 else " ".join(value[at : at + 4] for at in range(0, len(value), 4))

    def key() -> str:
        letters = LETTERS + DIGITS
        return dice.choice(
            (
                lambda: "AKIA" + drawn(dice, LETTERS[:26] + DIGITS, 16),
                lambda: dice.choice(("ghp_", "gho_", "ghs_")) + drawn(dice, letters, 36),
                lambda: "github_pat_" + drawn(dice, letters, 22) + "_" + drawn(dice, letters, 59),
                lambda: "glpat-" + drawn(dice, letters + "-_", 20),
                lambda: "sk-proj-" + drawn(dice, letters + "-_", 48) + drawn(dice, letters, 2),
                lambda: dice.choice(("sk_live_", "rk_test_", "pk_live_")) + drawn(dice, letters, 24),
                lambda: f"xoxb-{drawn(dice, DIGITS, 12)}-{drawn(dice, DIGITS, 12)}-{drawn(dice, letters, 24)}",
                lambda: "AIza" + drawn(dice, letters + "_", 35),
                lambda: "hf_" + drawn(dice, letters, 34),
                lambda: "npm_" + drawn(dice, letters, 36),
                lambda: f"SG.{drawn(dice, letters, 22)}.{drawn(dice, letters, 43)}",
                lambda: (
                    f"eyJ{drawn(dice, letters, 33)}.eyJ{drawn(dice, letters, 60)}.{drawn(dice, letters + '-_', 42)}A"
                ),
                lambda: "pypi-AgEIcHlwaS5vcmc" + drawn(dice, letters, 70),
                lambda: (
                    "-----BEGIN EC PRIVATE KEY-----\n"
                    + "\n".join(drawn(dice, letters + "+/", 64) for _ in range(3))
                    + "\n-----END EC PRIVATE KEY-----"
                ),
            )
        )()

    def npi() -> str:
        digits = dice.choice("12") + drawn(dice, DIGITS, 8)
        return next(f"{digits}{last}" for last in DIGITS if luhn_holds(f"80840{digits}{last}"))

    def mbi() -> str:
        letters, dash = "ACDEFGHJKMNPQRTUVWXY", dice.choice(("", "-"))
        first = drawn(dice, DIGITS[1:], 1) + drawn(dice, letters, 1) + drawn(dice, letters + DIGITS, 1)
        middle = drawn(dice, letters, 1) + drawn(dice, letters + DIGITS, 1) + drawn(dice, DIGITS, 1)
        return dash.join((first + drawn(dice, DIGITS, 1), middle, drawn(dice, letters, 2) + drawn(dice, DIGITS, 2)))

    def record() -> str:
        return dice.choice(("", "", "M", "H-", "PT", "R0")) + drawn(dice, DIGITS, dice.randrange(6, 11))

    def plan() -> str:
        return drawn(dice, LETTERS[:26], dice.randrange(4)) + drawn(dice, DIGITS, dice.randrange(8, 13))

    def birth_date() -> str:
        pattern = dice.choice(("%m/%d/%Y", "%d.%m.%Y", "%Y-%m-%d", "%d %B %Y", "%B %d, %Y", "%d-%b-%Y", "%m/%d/%y"))
        return english.date_of_birth().strftime(pattern)

    return {
        "email": lambda: dice.choice((english.email, english.company_email, english.safe_email, english.free_email))(),
        "card": card,
        "ssn": english.ssn,
        "iban": iban,
        "ip": lambda: dice.choice((english.ipv4_public, english.ipv4_private, english.ipv6))(),
        "phone": lambda: dice.choice(phones).phone_number(),
        "key": key,
        "mbi": mbi,
        "npi": npi,
        "mrn": record,
        "patient_id": record,
        "health_plan": plan,
        "birth_date": birth_date,
    }


def look_alikes(dice: random.Random) -> list[Callable[[], str]]:
    """What draws a phrase that only looks like personal data."""
    number = lambda digits: drawn(dice, "123456789", 1) + drawn(dice, DIGITS, digits - 1)  # noqa: E731
    part = lambda: str(dice.randrange(40))  # noqa: E731
    english = Faker("en_US")
    return [
        lambda: f"release {part()}.{part()}.{part()}.{part()}",
        lambda: f"upgraded to version {part()}.{part()}.{part()}.{part()}",
        lambda: f"libfoo=={part()}.{part()}.{part()}.{part()}",
        lambda: f"v{part()}.{part()}.{part()}-rc{part()}",
        lambda: f"order {number(3)}-{number(7)}-{number(7)}",
        lambda: f"order number {number(16)}",
        lambda: f"invoice #{number(10)}",
        lambda: f"tracking number {number(4)} {number(4)} {number(4)} {number(4)} {number(4)} {number(2)}",
        lambda: f"part no. {number(3)}-{number(2)}-{number(4)}",
        lambda: f"commit {drawn(dice, '0123456789abcdef', 40)}",
        lambda: f"md5 {drawn(dice, '0123456789abcdef', 32)}",
        lambda: f"sha256:{drawn(dice, '0123456789abcdef', 64)}",
        lambda: english.uuid4(),
        lambda: f"on {english.date()}",
        lambda: f"at {english.iso8601()}",
        lambda: f"since {english.date(pattern='%d.%m.%Y')}",
        lambda: f"ISBN {english.isbn13()}",
        lambda: f"ISBN {english.isbn10()}",
        lambda: f"timestamp {dice.randrange(15 * 10**8, 18 * 10**8)}",
        lambda: f"{dice.randrange(15 * 10**11, 18 * 10**11)} ms since the epoch",
        lambda: f"MAC {english.mac_address()}",
        lambda: f"doi:10.{number(4)}/{number(7)}.{number(7)}",
        lambda: f"position {english.latitude()}, {english.longitude()}",
        lambda: f"section {part()}.{part()}.{part()}.{part()}",
        lambda: f"rows {number(3)}-{number(3)} of {number(7)}",
        lambda: f"EAN {english.ean13()}",
        lambda: f"std::{drawn(dice, 'abcdef', 3)}::{drawn(dice, 'abcdef', 4)}",
        lambda: f"@{english.word()}.{english.word()} as a decorator",
        lambda: f"{english.word()}@{part()}.{part()}.{part()} from npm",
        lambda: f"pi is 3.{drawn(dice, DIGITS, 12)}",
        lambda: f"{number(3)},{number(3)},{number(3)} downloads",
        lambda: f"the key {english.word()}_{english.word()}_{part()}",
        lambda: f"token = {english.word()}_{english.word()}",
        lambda: f"zip {english.zipcode()}-{number(4)}",
        lambda: f"IBAN {drawn(dice, LETTERS[:26], 2)}{number(2)} is too short",
    ]


CARRIERS = (
    "Update for the file: {value} (see also {other})",
    "{value} replaces the old one; {other} stays as it is.",
    "Q: What should I use?\nA: {value}\nQ: And then?\nA: {other}",
    "After {other}, the operator typed {value} and pressed return.",
    "1. {other}\n2. {value}\n3. nothing else",
    "> {value}\n> {other}\nThat looks wrong to me.",
    "<td>{value}</td><td>{other}</td>",
    "The form shows {value}, but the screenshot shows {other}!",
    "values: [{other}, {value}]",
    "Thanks a lot. {value}. Regarding {other}, I will look tomorrow.",
)
NAMED = {
    "email": ("Drop a line to {value} by Friday; {other}.", "cc={value} subject={other}"),
    "card": ("I paid with {value} and got {other}.", "Mastercard {value}, {other}"),
    "ssn": ("Her social security number, {value}, and {other} were leaked.", "SSN={value} {other}"),
    "iban": ("Refund the deposit to account {value}. {other}", "Bank account (IBAN) {value}, {other}"),
    "ip": ("The host {value} answered, {other}.", "curl http://{value}/index.html # {other}"),
    "phone": ("Phone {value}, {other}.", "mobile: {value} | {other}", "You reach the desk at {value}. {other}.",
              "Text me at {value} if {other} is wrong.", "Contact: {value}\n{other}"),
    "mbi": ("Her Medicare card reads {value}, {other}.", "mbi,{value}\nnote,{other}",
            "Eligibility of {value}: {other}"),
    "npi": ("Referred by Dr. Adeyemi (NPI {value}), {other}.", "billing npi={value} {other}",
            "Rendering NPI # {value}; {other}", "provider number: {value}\n{other}"),
    "mrn": ("{other}. Chart opened for MRN {value}.", "<td>MRN</td> {other}; MRN#: {value}", "mrn={value}&x={other}",
            "Medical Record No: {value}\n{other}", "Labs under medical record number {value}, {other}"),
    "patient_id": ("Patient ID {value} has left, {other}.", "patientId: {value}, {other}", "Pt ID {value}; {other}",
                   "The patient's ID is {value}. {other}", "Patient no. {value} | {other}"),
    "health_plan": ("Covered by health plan ID {value}, {other}.", "Health insurance member number: {value}\n{other}",
                    "Medicaid ID {value} ({other})", "Blue Cross PPO. Subscriber ID: {value}. {other}",
                    "medical insurance policy # {value}, {other}"),
    "birth_date": ("DOB {value}, {other}", "Date of birth: {value}\n{other}", "birthdate={value}; {other}",
                   "Her date of birth is {value} and {other} is not.", "Patient born {value}, {other}"),
    "key": ("client = Client(api_key='{value}')  # {other}", "the secret was {value}, {other}"),
}  # fmt: skip


def generated() -> Iterator[Labelled]:
    """Rows with one value of a type and a look-alike, and rows with look-alikes alone."""
    dice = random.Random(SEED)
    others = look_alikes(dice)
    for kind, make in makers(dice).items():
        # Without the words that say what they are, these are just digits, capitals or a date.
        named_only = kind in ("phone", "npi", "mrn", "patient_id", "health_plan", "birth_date")
        carriers = NAMED[kind] if named_only else CARRIERS + NAMED[kind]
        for _ in range(ROWS):
            value, carrier = make(), dice.choice(carriers)
            text = carrier.format(value=value, other=dice.choice(others)())
            start = text.index(value)
            yield Labelled(text, [Finding(kind, start, start + len(value))], [])
            yield Labelled(
                dice.choice(CARRIERS).format(value=dice.choice(others)(), other=dice.choice(others)()), [], []
            )


def published(path: Path) -> Iterator[Labelled]:
    for row in json.loads(path.read_text(encoding="utf-8")):
        spans = [(span["entity_type"], span["start_position"], span["end_position"]) for span in row["spans"]]
        gold = [Finding(PRESIDIO[label], start, end) for label, start, end in spans if label in PRESIDIO]
        beside = [Finding("address", start, end) for label, start, end in spans if label in ("GPE", "ZIP_CODE")]
        yield Labelled(row["full_text"], gold, beside)


def places(kind: str, findings: Iterable[Finding]) -> set[int]:
    return {place for one in findings if one.kind == kind for place in range(one.start, one.end)}


class Score:
    """Counts of spans by type."""

    def __init__(self) -> None:
        self.wanted: Counter[str] = Counter()
        self.hit: Counter[str] = Counter()
        self.found: Counter[str] = Counter()
        self.right: Counter[str] = Counter()

    def add(self, row: Labelled, findings: list[Finding]) -> None:
        for kind in {finding.kind for finding in (*row.gold, *findings)}:
            gold, found = places(kind, row.gold), places(kind, findings)
            labelled = gold | places(kind, row.beside)
            for one in row.gold:
                if one.kind == kind:
                    self.wanted[kind] += 1
                    self.hit[kind] += 2 * len(found & set(range(one.start, one.end))) >= one.end - one.start
            for one in findings:
                if one.kind == kind:
                    written = {place for place in range(one.start, one.end) if row.text[place].isalnum()}
                    self.found[kind] += 1
                    self.right[kind] += bool(written & gold) and 2 * len(written & labelled) >= len(written)

    def recall(self, kind: str) -> float:
        return self.hit[kind] / max(self.wanted[kind], 1)

    def precision(self, kind: str) -> float:
        return self.right[kind] / max(self.found[kind], 1)


def technical_documents(megabytes: float) -> list[str]:
    """Prose of the installed packages: their descriptions, in which few people are named."""
    texts: list[str] = []
    for package in (
        "scikit-learn",
        "numpy",
        "pandas",
        "sqlalchemy",
        "httpx",
        "mlflow",
        "transformers",
        "fastapi",
        "rich",
    ):
        texts += [
            path.read_text()
            for path in files(package) or []
            if path.suffix in (".md", ".rst", ".txt") or path.name == "METADATA"
        ]
    kept: list[str] = []
    for text in dict.fromkeys(texts):
        if sum(map(len, kept)) < megabytes * 1e6:
            kept.append(text[:200_000])
    return kept


def main() -> None:
    path = SHARED / "pii_presidio" / "synth_dataset_v2.json"
    if not path.exists():
        print(f"{path} is not here; set COLLOQUY_SHARED_DATA")
        sys.exit(2)
    find = load_finder(KINDS)
    pattern_score, name_score = Score(), Score()
    for row in published(path):
        findings = find(row.text)
        name_score.add(row, findings)
        pattern_score.add(row, findings)
    for row in generated():
        pattern_score.add(row, find_pii(row.text))

    figures = {}
    print(f"{'type':<12}{'spans':>7}{'recall':>9}{'at least':>10}{'precision':>11}{'at least':>10}")
    for kind in KINDS:
        score = pattern_score if kind in PATTERN_KINDS else name_score
        recall, precision = score.recall(kind), score.precision(kind)
        figures |= {f"recall_{kind}": round(recall, 4), f"precision_{kind}": round(precision, 4)}
        least = LIMITS[kind]
        print(f"{kind:<12}{score.wanted[kind]:>7}{recall:>9.3f}{least[0]:>10}{precision:>11.3f}{least[1]:>10}")

    documents = technical_documents(2.0)
    size = sum(map(len, documents)) / 1e6
    for name, finder in (("patterns", find_pii), ("all types", find)):
        started = time.process_time()
        counts = Counter(finding.kind for text in documents for finding in finder(text))
        seconds = time.process_time() - started
        hits = ", ".join(f"{kind} {count / size:.0f}" for kind, count in sorted(counts.items()))
        print(f"{name} on {size:.1f} MB of technical text: {seconds / size:.2f} s/MB; hits per MB: {hits}")
    print(json.dumps({"name": "data_pii", "figures": figures}))


if __name__ == "__main__":
    main()

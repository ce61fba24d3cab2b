"""Accounts on a Label Studio server: of people, from a file that names them, and of simulated labelers.

    python -m labeling.accounts --people people.csv --out .colloquy/secrets/people.json
    python -m labeling.accounts --count 5 --out labelers.json

Makes them by invitation, as people join, each with a random password and a token of its own, and keeps both in a file
that only its owner can read. Run again it changes nothing, or adds what is missing. The server knows one role only;
the roles here are kept by the pipeline (`ROLES`).
"""

import argparse
import csv
import json
import os
import secrets
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from labeling.client import LabelStudio, LabelStudioDown
from pipelines.core.errors import BadInput, ExitCode
from pipelines.core.jsonl import read_json

FILE_VARIABLE = "LABELERS_FILE"
PEOPLE_VARIABLE = "PEOPLE_FILE"
ROLES = ("labeler", "checker")  # who ranks and writes; who also accepts and returns what others wrote

# No mail server can have this domain (RFC 2606), so no person signs up with it: the address marks the account.
SIMULATED_DOMAIN = "simulated.invalid"


@dataclass(frozen=True, slots=True)
class Person:
    """One line of the file of people."""

    email: str
    name: str
    role: str  # of ROLES


@dataclass(frozen=True, slots=True)
class Account:
    """A labeler's account; the token is a personal access token of Label Studio.

    Password and token are empty where the account was there before: they are its owner's.
    """

    email: str
    password: str
    token: str
    role: str = "labeler"


def is_simulated(email: str) -> bool:
    """Whether the account was made by this module."""
    return email.lower().endswith(f"@{SIMULATED_DOMAIN}")


def read_accounts(path: Path) -> list[Account]:
    """The accounts in `path`, by e-mail address.

    Raises:
        BadInput: the file is missing, or an entry lacks something.
    """
    rows = read_json(path)
    try:
        accounts = [Account(row["email"], row["password"], row["token"], row.get("role", "labeler")) for row in rows]
    except (KeyError, TypeError) as error:
        raise BadInput(f"{path} must be a list of {{email, password, token}}, but {error} is wrong in it") from error
    return sorted(accounts, key=lambda account: account.email)


def read_people(path: Path) -> list[Person]:
    """The people in a CSV file with the columns email, name and role.

    Raises:
        BadInput: the file is missing, or lines are wrong; each is named.
    """
    if not path.is_file():
        raise BadInput(f"there is no file of people {str(path)!r}")
    people: dict[str, Person] = {}
    wrong = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        if missing := {"email", "name", "role"} - set(rows.fieldnames or ()):
            raise BadInput(f"{path} lacks the columns {sorted(missing)} in its first line")
        for row in rows:
            person = Person(*((row[key] or "").strip() for key in ("email", "name", "role")))
            person = replace(person, email=person.email.lower())  # as Label Studio stores it
            if person.role not in ROLES:
                wrong.append(f"  line {rows.line_num}: role {person.role!r} is none of {ROLES}")
            elif "@" not in person.email or is_simulated(person.email):
                wrong.append(f"  line {rows.line_num}: {person.email!r} is no person's e-mail address")
            elif person.email in people:
                wrong.append(f"  line {rows.line_num}: {person.email} is there twice")
            people[person.email] = person
    if wrong:
        raise BadInput("\n".join([f"{path} has {len(wrong)} wrong lines; correct them:", *wrong]))
    return list(people.values())


def checkers() -> set[str] | None:
    """Whose verdicts count, by e-mail address; None, anybody's, where no file of people is named or there."""
    path = os.environ.get(PEOPLE_VARIABLE)
    if not path or not Path(path).exists():
        return None
    return {account.email for account in read_accounts(Path(path)) if account.role == "checker"}


def write_accounts(path: Path, accounts: Sequence[Account]) -> None:
    """Write `accounts` so that no other user of the machine can read them, at no moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        json.dump([asdict(account) for account in accounts], out, indent=2)
    partial.replace(path)


def _works(admin: LabelStudio, account: Account) -> bool:
    try:
        with LabelStudio(admin.url, account.token) as labeler:
            return labeler.whoami().email == account.email
    except BadInput:
        return False


def ensure_accounts(admin: LabelStudio, count: int, path: Path) -> list[Account]:
    """Make `path` hold at least `count` accounts that work on the server; returns them.

    An account whose password is lost (its file is gone) can't be used again: its number is left out. The file is
    written after each sign-up, so that a killed call loses one account at most.
    """
    kept = [account for account in (read_accounts(path) if path.exists() else []) if _works(admin, account)]
    taken = {user.email for user in admin.users().values()}
    number = 0
    while len(kept) < count:
        number += 1
        email = f"labeler-{number}@{SIMULATED_DOMAIN}"
        if email in taken:
            continue
        password = secrets.token_urlsafe(18)
        token = admin.sign_up(email, password, "Simulated", f"labeler {number}")
        kept.append(Account(email, password, token))
        write_accounts(path, kept)
    return kept


def ensure_people(admin: LabelStudio, people: Sequence[Person], path: Path) -> list[Account]:
    """Make an account for each of `people` who has none, and keep their roles in `path`; returns them.

    The file is written after each sign-up, so that a killed call loses one password at most. Whoever is no longer among
    `people` checks nothing any more.
    """
    listed = {person.email for person in people}
    accounts = {
        account.email: account if account.email in listed else replace(account, role="labeler")
        for account in (read_accounts(path) if path.exists() else [])
    }
    taken = {user.email.lower() for user in admin.users().values()}
    for person in people:
        known = accounts.get(person.email)
        if person.email in taken:
            account = replace(known or Account(person.email, "", ""), role=person.role)
        else:
            password = secrets.token_urlsafe(18)
            first, _, last = person.name.partition(" ")
            account = Account(person.email, password, admin.sign_up(person.email, password, first, last), person.role)
        accounts[person.email] = account
        write_accounts(path, list(accounts.values()))
    return [accounts[person.email] for person in people]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m labeling.accounts", description=__doc__)
    whose = parser.add_mutually_exclusive_group(required=True)
    whose.add_argument("--people", type=Path, help="CSV with the columns email, name and role (labeler or checker)")
    whose.add_argument("--count", type=int, help="how many simulated labelers the file must hold")
    parser.add_argument("--out", type=Path, required=True, help="the file, JSON, readable by you only")
    arguments = parser.parse_args()
    try:
        with LabelStudio.from_environment() as admin:
            if arguments.people:
                accounts = ensure_people(admin, read_people(arguments.people), arguments.out)
            else:
                accounts = ensure_accounts(admin, arguments.count, arguments.out)
    except (BadInput, LabelStudioDown) as error:
        print(error, file=sys.stderr)
        sys.exit(ExitCode.BAD_INPUT if isinstance(error, BadInput) else 1)
    print(f"{len(accounts)} {'people' if arguments.people else 'simulated labelers'} in {arguments.out}")
    for account in accounts:
        if not account.password:
            print(f"  {account.email} had an account already; its password is its owner's")


if __name__ == "__main__":
    main()

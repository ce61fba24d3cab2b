"""Accounts of simulated labelers on a Label Studio server.

    python -m labeling.accounts --count 5 --out labelers.json

Makes them by invitation, as people join, each with a random password and a token of its own, and keeps both in a file
that only its owner can read. Run again it changes nothing, or adds what is missing.
"""

import argparse
import json
import os
import secrets
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from labeling.client import LabelStudio, LabelStudioDown
from pipelines.core.errors import BadInput, ExitCode
from pipelines.core.jsonl import read_json

FILE_VARIABLE = "LABELERS_FILE"

# No mail server can have this domain (RFC 2606), so no person signs up with it: the address marks the account.
SIMULATED_DOMAIN = "simulated.invalid"


@dataclass(frozen=True, slots=True)
class Account:
    """A labeler's account; the token is a personal access token of Label Studio."""

    email: str
    password: str
    token: str


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
        accounts = [Account(row["email"], row["password"], row["token"]) for row in rows]
    except (KeyError, TypeError) as error:
        raise BadInput(f"{path} must be a list of {{email, password, token}}, but {error} is wrong in it") from error
    return sorted(accounts, key=lambda account: account.email)


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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m labeling.accounts", description=__doc__)
    parser.add_argument("--count", type=int, required=True, help="how many accounts the file must hold")
    parser.add_argument("--out", type=Path, required=True, help="the file, JSON, readable by you only")
    arguments = parser.parse_args()
    try:
        with LabelStudio.from_environment() as admin:
            accounts = ensure_accounts(admin, arguments.count, arguments.out)
    except (BadInput, LabelStudioDown) as error:
        print(error, file=sys.stderr)
        sys.exit(ExitCode.BAD_INPUT if isinstance(error, BadInput) else 1)
    print(f"{len(accounts)} simulated labelers in {arguments.out}")


if __name__ == "__main__":
    main()

"""Accounts from the command line: who is an administrator, and the schema of their database.

    python -m serving.operations.users grant-admin EMAIL | revoke-admin EMAIL | migrate | migrate-back REVISION

Environment: SQL_URL. Migrating back sets rows aside; the next migration takes them back.
"""

import argparse
import asyncio
import sys

from pipelines.core.errors import BadInput
from serving.settings import address
from serving.stores import sql
from serving.stores.accounts import Accounts


def parse(words: list[str]) -> argparse.Namespace:
    """The command and its argument."""
    parser = argparse.ArgumentParser(prog="python -m serving.operations.users")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("grant-admin", "revoke-admin"):
        commands.add_parser(name).add_argument("email")
    commands.add_parser("migrate")
    commands.add_parser("migrate-back").add_argument("revision")
    return parser.parse_args(words)


async def run(asked: argparse.Namespace, url: str) -> str:
    """Do what is asked; returns what to say.

    Raises:
        BadInput: there is no such account.
    """
    engine = sql.open_engine(url)
    accounts = Accounts(engine)
    try:
        if asked.command == "migrate-back":
            await sql.migrate_back(engine, asked.revision)
            return f"the schema is at {asked.revision}"
        await accounts.prepare()
        if asked.command == "migrate":
            return "the schema is the newest"
        user = await accounts.by_email(asked.email.strip().lower())
        if user is None:
            raise BadInput(f"{asked.email!r} has no account; register it on the chat page first")
        await accounts.set_admin(user.user_id, asked.command == "grant-admin")
        return f"{user.email} {'is' if asked.command == 'grant-admin' else 'is not'} an administrator now"
    finally:
        await accounts.close()


def main() -> None:
    try:
        print(asyncio.run(run(parse(sys.argv[1:]), address("SQL_URL"))))
    except BadInput as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

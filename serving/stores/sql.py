"""The SQL database: SQLite in a file or PostgreSQL as a server, by one address, and its migrations."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from pipelines.core.errors import BadInput
from serving.stores.errors import StoreDown

MIGRATIONS = Path(__file__).with_name("migrations")
DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg"}
TIMEOUT_S = 3
MIGRATING = 7_001  # the advisory lock; any number that every worker takes


def open_engine(url: str) -> AsyncEngine:
    """The database at `url`: `sqlite:////folder/users.db` or `postgresql://user:password@host/name`.

    Raises:
        BadInput: the address is of neither kind; it is not repeated, since it may hold a password.
    """
    try:
        address = make_url(url)
        driver = DRIVERS[address.get_backend_name()]
    except (ArgumentError, KeyError) as error:
        raise BadInput("the SQL address must start with sqlite:/// or postgresql://") from error
    if driver == DRIVERS["postgresql"]:
        options = {"connect_timeout": TIMEOUT_S, "options": f"-c statement_timeout={TIMEOUT_S * 1000}"}
        return create_async_engine(
            address.set(drivername=driver), connect_args=options, pool_pre_ping=True, hide_parameters=True
        )
    logging.getLogger("aiosqlite").setLevel(logging.INFO)  # at DEBUG it writes parameters, so also credentials
    if address.database:
        Path(address.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(
        address.set(drivername=driver), connect_args={"timeout": TIMEOUT_S}, hide_parameters=True
    )
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # the driver's own BEGIN leaves schema changes outside transactions
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    alone = connection.get_execution_options().get("alone", False)
    connection.exec_driver_sql("BEGIN EXCLUSIVE" if alone else "BEGIN")


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """One transaction; what the driver can't do becomes `StoreDown`, without parameters or address in its text."""
    try:
        async with engine.begin() as connection:
            yield connection
    except IntegrityError:  # the caller knows which rule of the schema it may break
        raise
    except (SQLAlchemyError, OSError) as error:
        reason = type(getattr(error, "orig", error)).__name__
        raise StoreDown(f"the user database does not answer: {reason}") from error


async def migrate(engine: AsyncEngine) -> None:
    """Bring the database to the newest schema; of several workers that start at once, one does it."""
    await _migrate(engine, command.upgrade, "head")


async def migrate_back(engine: AsyncEngine, revision: str) -> None:
    """Bring the database back to an older schema (`base` is none); rows are set aside, not lost."""
    await _migrate(engine, command.downgrade, revision)


async def _migrate(engine: AsyncEngine, run: Callable[[Config, str], None], revision: str) -> None:
    def on(connection: Connection) -> None:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL statement_timeout = 0"))  # a large table takes its time
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATING})
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        run(config, revision)

    async with transaction(engine.execution_options(alone=True)) as connection:
        await connection.run_sync(on)

"""The SQL schema as SQLAlchemy sees it; `migrations/` brings a database there, and a test compares the two."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Date, DateTime, ForeignKey, MetaData, String, Table, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

ID_CHARACTERS = 64
EMAIL_CHARACTERS = 254  # RFC 5321, 4.5.3.1.3


class UtcTime(TypeDecorator[datetime]):
    """A time in UTC; SQLite keeps no zone, so it is put back when read."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _owner(**options: Any) -> Column[str]:
    """The user whom a row belongs to and with whom it goes."""
    return Column("user_id", String(ID_CHARACTERS), ForeignKey("users.user_id", ondelete="CASCADE"), **options)


users = Table(
    "users",
    metadata,
    Column("user_id", String(ID_CHARACTERS), primary_key=True),
    Column("email", String(EMAIL_CHARACTERS), nullable=False, unique=True),  # lower case
    Column("auth_credentials", Text, nullable=False),  # argon2's encoded hash
    Column("preferences", JSON, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("last_login", UtcTime),
)

admins = Table(
    "admins",
    metadata,
    _owner(primary_key=True),
    Column("since", UtcTime, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", String(ID_CHARACTERS), primary_key=True),
    _owner(nullable=False, index=True),
    Column("name", String(100), nullable=False),
    Column("key_hash", String(64), nullable=False, unique=True),  # SHA-256, hex
    Column("shown", String(24), nullable=False),  # its first characters, to tell keys apart
    Column("created_at", UtcTime, nullable=False),
    Column("last_used", UtcTime),
)

token_usage = Table(
    "token_usage",
    metadata,
    # No foreign key: visitors, who have no account, use tokens too.
    Column("user_id", String(ID_CHARACTERS), primary_key=True),
    Column("day", Date, primary_key=True),  # in UTC
    Column("key_id", String(ID_CHARACTERS), primary_key=True),  # "" is the chat page
    Column("requests", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
)

"""Going back without losing rows: a downgrade renames a table, and the next upgrade takes it back."""

import sqlalchemy
from alembic import op

PREFIX = "aside_"


def take_back(table: str) -> bool:
    """Rename what an earlier downgrade set aside; False when there is nothing, so that the table must be made."""
    if not sqlalchemy.inspect(op.get_bind()).has_table(PREFIX + table):
        return False
    op.rename_table(PREFIX + table, table)
    return True


def set_aside(table: str) -> None:
    """Take `table` out of the schema with its rows kept."""
    op.rename_table(table, PREFIX + table)

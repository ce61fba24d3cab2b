"""Users."""

import sqlalchemy as sa
from alembic import op

from serving.stores.migrations.set_aside import set_aside, take_back

revision = "0001"
down_revision = None


def upgrade() -> None:
    if take_back("users"):
        return
    op.create_table(
        "users",
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("auth_credentials", sa.Text, nullable=False),
        sa.Column("preferences", sa.JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_login", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("user_id", name="pk_users"),
        sa.UniqueConstraint("email", name="uq_users_email"),
    )


def downgrade() -> None:
    set_aside("users")

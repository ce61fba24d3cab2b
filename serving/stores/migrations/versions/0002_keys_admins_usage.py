"""API keys, administrators, and the tokens that each key used by day."""

import sqlalchemy as sa
from alembic import op

from serving.stores.migrations.set_aside import set_aside, take_back

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    if not take_back("admins"):
        op.create_table(
            "admins",
            sa.Column("user_id", sa.String(64), nullable=False),
            sa.Column("since", sa.DateTime(timezone=True), nullable=False),
            sa.PrimaryKeyConstraint("user_id", name="pk_admins"),
            sa.ForeignKeyConstraint(["user_id"], ["users.user_id"], name="fk_admins_user_id_users", ondelete="CASCADE"),
        )
    if not take_back("api_keys"):
        op.create_table(
            "api_keys",
            sa.Column("key_id", sa.String(64), nullable=False),
            sa.Column("user_id", sa.String(64), nullable=False),
            sa.Column("name", sa.String(100), nullable=False),
            sa.Column("key_hash", sa.String(64), nullable=False),
            sa.Column("shown", sa.String(24), nullable=False),
            sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
            sa.Column("last_used", sa.DateTime(timezone=True)),
            sa.PrimaryKeyConstraint("key_id", name="pk_api_keys"),
            sa.UniqueConstraint("key_hash", name="uq_api_keys_key_hash"),
            sa.ForeignKeyConstraint(
                ["user_id"], ["users.user_id"], name="fk_api_keys_user_id_users", ondelete="CASCADE"
            ),
        )
        op.create_index("ix_api_keys_user_id", "api_keys", ["user_id"])
    if not take_back("token_usage"):
        op.create_table(
            "token_usage",
            sa.Column("user_id", sa.String(64), nullable=False),
            sa.Column("day", sa.Date, nullable=False),
            sa.Column("key_id", sa.String(64), nullable=False),
            sa.Column("requests", sa.BigInteger, nullable=False),
            sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
            sa.Column("completion_tokens", sa.BigInteger, nullable=False),
            sa.PrimaryKeyConstraint("user_id", "day", "key_id", name="pk_token_usage"),
        )


def downgrade() -> None:
    for table in ("token_usage", "api_keys", "admins"):
        set_aside(table)

"""API keys; generations, datasets, jobs and models have the key of the request that they were created with."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

OWNED = ("generations", "datasets", "jobs", "models")


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("prefix", sa.String(length=16), nullable=False),
        sa.Column("key_sha256", sa.String(length=64), nullable=False),
        sa.Column(
            "scopes", sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql"), nullable=False
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_on", sa.Date(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("key_sha256", name=op.f("uq_api_keys_key_sha256")),
    )
    unrevoked = sa.text("revoked_at IS NULL")
    op.create_index(
        "uq_api_keys_name", "api_keys", ["name"], unique=True, sqlite_where=unrevoked, postgresql_where=unrevoked
    )
    for table in OWNED:
        op.add_column(table, sa.Column("key_id", sa.String(length=36), nullable=True))
        op.create_index(f"ix_{table}_key_id_id", table, ["key_id", "id"])


def downgrade() -> None:
    for table in OWNED:
        op.drop_index(f"ix_{table}_key_id_id", table)
        op.drop_column(table, "key_id")
    op.drop_table("api_keys")

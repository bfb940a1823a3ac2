"""Keys have bounds of their own, and callers with a quota are charged for their work."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    json = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
    op.add_column("api_keys", sa.Column("shares", json, nullable=True))
    op.add_column("api_keys", sa.Column("num_changes", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("pixel_steps", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_table(
        "usage",
        sa.Column("caller", sa.String(length=128), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("pixel_steps", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("caller", "day", name=op.f("pk_usage")),
    )


def downgrade() -> None:
    op.drop_table("usage")
    op.drop_column("jobs", "pixel_steps")
    op.drop_column("api_keys", "num_changes")
    op.drop_column("api_keys", "shares")

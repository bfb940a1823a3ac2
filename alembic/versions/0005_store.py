"""The database says which store it belongs to: the id that also stands in the data folder."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "store",
        sa.Column("row", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint('"row" = 1', name=op.f("ck_store_one_row")),
        sa.PrimaryKeyConstraint("row", name=op.f("pk_store")),
    )


def downgrade() -> None:
    op.drop_table("store")

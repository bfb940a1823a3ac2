"""Retention of generated images: an index by age, files to remove, and the daily runs."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_index("ix_generations_created_at_id", "generations", ["created_at", "id"])
    op.create_table(
        "removed_files",
        sa.Column("path", sa.String(length=512), nullable=False),
        sa.PrimaryKeyConstraint("path", name=op.f("pk_removed_files")),
    )
    op.create_table(
        "prune_runs",
        sa.Column("day", sa.String(length=10), nullable=False),
        sa.Column("worker_id", sa.String(length=128), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("num_generations", sa.Integer(), nullable=False),
        sa.Column("num_images", sa.Integer(), nullable=False),
        sa.Column("num_bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("day", name=op.f("pk_prune_runs")),
    )


def downgrade() -> None:
    op.drop_table("prune_runs")
    op.drop_table("removed_files")
    op.drop_index("ix_generations_created_at_id", "generations")

"""Datasets have a split `validation`, whose name is longer than eight characters."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    _resize_split(8, 16)
    op.add_column("datasets", sa.Column("validation_per_class", sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    # The older release does not know these images; their files are unrecorded then, and moved to .lost+found.
    op.execute("DELETE FROM images WHERE split = 'validation'")
    op.drop_column("datasets", "validation_per_class")
    _resize_split(16, 8)


def _resize_split(old: int, new: int) -> None:
    with op.batch_alter_table("images") as images:
        images.alter_column("split", existing_type=sa.String(old), type_=sa.String(new), existing_nullable=True)

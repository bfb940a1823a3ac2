"""Images say whether they are real or synthetic, and what their pixels are."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    # By hand: Alembic would copy the whole table on SQLite to add a column with its check.
    op.execute(
        "ALTER TABLE images ADD COLUMN source VARCHAR(16) DEFAULT 'synthetic' NOT NULL"
        " CONSTRAINT ck_images_source_known CHECK (source IN ('synthetic', 'real'))"
    )
    op.add_column("images", sa.Column("pixels_sha256", sa.String(length=64), nullable=True))
    op.create_index("ix_images_dataset_id_pixels_sha256", "images", ["dataset_id", "pixels_sha256"], unique=True)


def downgrade() -> None:
    op.drop_index("ix_images_dataset_id_pixels_sha256", table_name="images")
    with op.batch_alter_table("images") as images:
        # After 0020 the condition is the table's, on SQLite too, and would not go with its column.
        images.drop_constraint(op.f("ck_images_source_known"), type_="check")
        images.drop_column("pixels_sha256")
        images.drop_column("source")

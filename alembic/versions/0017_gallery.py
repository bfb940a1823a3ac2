"""Lists of a dataset's images are read from an index, newest first."""

from collections.abc import Sequence

from alembic import op

revision: str = "0017"
down_revision: str | None = "0016"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_index("ix_images_dataset_id_id", "images", ["dataset_id", "id"])


def downgrade() -> None:
    op.drop_index("ix_images_dataset_id_id", "images")

"""Lists of a dataset's images are filtered in their index."""

from collections.abc import Sequence

from alembic import op

revision: str = "0020"
down_revision: str | None = "0019"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_ORDER = ["dataset_id", "id"]
_FILTERS = ["decision", "split", "class_index", "review", "source", "clip_score"]


def upgrade() -> None:
    op.create_index("ix_images_listed", "images", [*_ORDER, *_FILTERS])
    op.drop_index("ix_images_dataset_id_id", "images")


def downgrade() -> None:
    op.create_index("ix_images_dataset_id_id", "images", _ORDER)
    op.drop_index("ix_images_listed", "images")

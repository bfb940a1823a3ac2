"""People accept and reject images of datasets."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0018"
down_revision: str | None = "0017"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_PLACE = ["dataset_id", "split", "class_index", "position", "decision"]
_KNOWN = "review IN ('accepted', 'rejected')"


def upgrade() -> None:
    with op.batch_alter_table("images") as images:
        images.add_column(sa.Column("review", sa.String(8), nullable=True))
        images.create_check_constraint("review_known", _KNOWN)
        images.drop_index("ix_images_place")
        images.create_index("ix_images_place", [*_PLACE, "review"])


def downgrade() -> None:
    # The older release has no reviews: rejected images belong to their datasets again.
    with op.batch_alter_table("images") as images:
        images.drop_index("ix_images_place")
        images.create_index("ix_images_place", _PLACE)
        images.drop_constraint("review_known", type_="check")
        images.drop_column("review")

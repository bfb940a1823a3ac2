"""Recipes of datasets, and what their filter said of each image."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

JSON_DOCUMENT = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
PLACE = ["dataset_id", "split", "class_index", "position"]
ONE_IMAGE_A_PLACE = "uq_images_dataset_id_split_class_index_position"
KEPT = sa.text("decision = 'kept'")


def upgrade() -> None:
    op.add_column("datasets", sa.Column("recipe", JSON_DOCUMENT, nullable=True))
    op.add_column("datasets", sa.Column("missing", JSON_DOCUMENT, nullable=True))
    with op.batch_alter_table("images") as images:
        images.add_column(sa.Column("clip_embedding", sa.LargeBinary(), nullable=True))
        images.add_column(sa.Column("decision", sa.String(length=8), nullable=False, server_default="kept"))
        images.add_column(sa.Column("reason", sa.String(length=100), nullable=True))
        images.create_check_constraint(op.f("ck_images_decision_known"), "decision IN ('kept', 'rejected')")
        images.drop_constraint(ONE_IMAGE_A_PLACE, type_="unique")
    op.create_index("ix_images_place", "images", [*PLACE, "decision"])
    op.create_index("uq_images_kept_place", "images", PLACE, unique=True, sqlite_where=KEPT, postgresql_where=KEPT)


def downgrade() -> None:
    op.execute("DELETE FROM images WHERE decision = 'rejected'")
    op.drop_index("uq_images_kept_place", table_name="images")
    op.drop_index("ix_images_place", table_name="images")
    with op.batch_alter_table("images") as images:
        images.create_unique_constraint(ONE_IMAGE_A_PLACE, PLACE)
        images.drop_constraint(op.f("ck_images_decision_known"), type_="check")
        images.drop_column("reason")
        images.drop_column("decision")
        images.drop_column("clip_embedding")
    op.drop_column("datasets", "missing")
    op.drop_column("datasets", "recipe")

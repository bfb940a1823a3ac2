"""Evaluations of models in a table of their own; epochs have validation metrics; jobs have phases."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("progress_phase", sa.String(16), nullable=True))
    op.add_column("train_epochs", sa.Column("validation_loss", sa.Double(), nullable=True))
    op.add_column("train_epochs", sa.Column("validation_accuracy", sa.Double(), nullable=True))
    json = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
    op.create_table(
        "evaluations",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("model_id", sa.String(length=36), nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("dataset_id", sa.String(length=36), nullable=False),
        sa.Column("dataset", json, nullable=False),
        sa.Column("split", sa.String(length=16), nullable=False),
        sa.Column("summary", json, nullable=False),
        sa.Column("tables", json, nullable=False),
        sa.Column("details", json, nullable=False),
        sa.Column("predictions", json, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.id"], name=op.f("fk_evaluations_model_id_models"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evaluations")),
        sa.UniqueConstraint("job_id", name=op.f("uq_evaluations_job_id")),
    )
    op.create_index("ix_evaluations_model_id", "evaluations", ["model_id"])


def downgrade() -> None:
    op.drop_table("evaluations")
    op.drop_column("train_epochs", "validation_accuracy")
    op.drop_column("train_epochs", "validation_loss")
    op.drop_column("jobs", "progress_phase")

"""Jobs that pause, have a priority and are retried; idempotency keys."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

JSON_DOCUMENT = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")

STATUS_KNOWN = "ck_jobs_status_known"
OLD_STATUSES = "status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')"
NEW_STATUSES = "status IN ('queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled')"


def new_columns() -> list[sa.Column]:
    # The server's defaults stay: a process of the release before, still running, inserts without these columns.
    return [
        sa.Column("priority", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("retry_of", sa.String(length=36), nullable=True),
        sa.Column("pause_requested", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("wake_requested", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("pace", JSON_DOCUMENT, nullable=False, server_default="[]"),
    ]


def upgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        for column in new_columns():
            jobs.add_column(column)
        jobs.drop_constraint(op.f(STATUS_KNOWN), type_="check")
        jobs.create_check_constraint(op.f(STATUS_KNOWN), NEW_STATUSES)
    op.create_table(
        "idempotency_keys",
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("location", sa.String(length=255), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_idempotency_keys_created_at", table_name="idempotency_keys")
    op.drop_table("idempotency_keys")
    # The release before knows no pause: such a job counts as cancelled.
    op.execute("UPDATE jobs SET status = 'cancelled', finished_at = created_at WHERE status = 'paused'")
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_constraint(op.f(STATUS_KNOWN), type_="check")
        jobs.create_check_constraint(op.f(STATUS_KNOWN), OLD_STATUSES)
        for column in reversed(new_columns()):
            jobs.drop_column(column.name)

"""Jobs know their caller, so that callers share the workers and the engine evenly."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_ACTIVE = sa.text("status IN ('queued', 'running', 'paused')")


def upgrade() -> None:
    # With a default of the database: releases without the column still insert jobs during a rolling upgrade.
    op.add_column("jobs", sa.Column("caller", sa.String(128), nullable=False, server_default=""))
    op.create_index("ix_jobs_caller", "jobs", ["caller", "status"], sqlite_where=_ACTIVE, postgresql_where=_ACTIVE)


def downgrade() -> None:
    op.drop_index("ix_jobs_caller", "jobs")
    op.drop_column("jobs", "caller")

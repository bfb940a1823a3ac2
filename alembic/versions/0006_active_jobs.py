"""The jobs that have not ended have an index of their own."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_ACTIVE = sa.text("status IN ('queued', 'running', 'paused')")


def upgrade() -> None:
    op.create_index("ix_jobs_active", "jobs", ["id", "kind", "status"], sqlite_where=_ACTIVE, postgresql_where=_ACTIVE)


def downgrade() -> None:
    op.drop_index("ix_jobs_active", table_name="jobs")

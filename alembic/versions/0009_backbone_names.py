"""Names of backbones may have 64 characters: timm's are longer than 32."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    _resize(32, 64)


def downgrade() -> None:
    _resize(64, 32)


def _resize(old: int, new: int) -> None:
    with op.batch_alter_table("models") as table:
        table.alter_column("backbone", existing_type=sa.String(old), type_=sa.String(new), existing_nullable=False)

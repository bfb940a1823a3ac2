"""The tables of callers: API keys, and what a caller with a quota has been charged.

The module opens no session; any thread may use it. `app.db.models` has the other tables, and imports these.
"""

from datetime import date, datetime
from typing import Any

from sqlalchemy import BigInteger, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, Id, utc_now

_UNREVOKED = text("revoked_at IS NULL")


class ApiKey(Base):
    """An API key: its hash, never the key itself. A row is never deleted, so objects can refer to it by `key_id`."""

    __tablename__ = "api_keys"
    __table_args__ = (
        # A revoked key's name may be used again.
        Index("uq_api_keys_name", "name", unique=True, sqlite_where=_UNREVOKED, postgresql_where=_UNREVOKED),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(63))
    # The first characters of the key, by which a person recognizes it; not secret.
    prefix: Mapped[str] = mapped_column(String(16))
    key_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    scopes: Mapped[list[Any]]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    # The day in UTC.
    last_used_on: Mapped[date | None]
    # Its own bounds by name (`Shares`); None: it follows the settings of each node.
    shares: Mapped[dict[str, Any] | None]
    # How often `shares` was changed, by which API processes notice it.
    num_changes: Mapped[int] = mapped_column(default=0, server_default="0")


class Usage(Base):
    """What a caller with a quota has been charged on a day."""

    __tablename__ = "usage"

    # As in `Job.caller`.
    caller: Mapped[str] = mapped_column(String(128), primary_key=True)
    # In UTC.
    day: Mapped[date] = mapped_column(primary_key=True)
    pixel_steps: Mapped[int] = mapped_column(BigInteger)

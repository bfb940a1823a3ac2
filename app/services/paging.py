"""Keyset pages over UUIDv7 ids: newest first, stable while rows are inserted."""

import base64
import binascii
import uuid
from typing import Any, TypeVar

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.errors import Malformed

Row = TypeVar("Row")


def fetch_page(
    session: Session, query: Select[Row], id_column: InstrumentedAttribute[str], limit: int, cursor: str | None
) -> tuple[list[Row], str | None]:
    """Return one page of `query` and the cursor of the next page.

    Args:
        session: An open session.
        query: Selects one entity; neither ordered nor limited yet.
        id_column: The entity's UUIDv7 id, which orders the list.
        limit: Rows a page, >= 1.
        cursor: As handed out with the page before; None for the first page.

    Raises:
        Malformed: The cursor was not made here.
    """
    if cursor is not None:
        query = query.where(id_column < _decode(cursor))
    rows: list[Any] = list(session.scalars(query.order_by(id_column.desc()).limit(limit + 1)))
    more = len(rows) > limit
    rows = rows[:limit]
    return rows, _encode(rows[-1].id) if more else None


def _encode(last_id: str) -> str:
    return base64.urlsafe_b64encode(uuid.UUID(last_id).bytes).decode().rstrip("=")


def _decode(cursor: str) -> str:
    try:
        return str(uuid.UUID(bytes=base64.b64decode(cursor + "==", altchars=b"-_", validate=True)))
    except (binascii.Error, ValueError):
        raise Malformed("the cursor is not one of ours", code="bad_cursor") from None

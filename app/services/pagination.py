"""Keyset pagination over UUIDv7 ids: newest first, stable while rows are inserted, pages of a bounded size.

A page of large items ends early, so that its size is not the product of two limits; its cursor continues from there.
Imports no schema or resource. Runs inside the caller's session, on the caller's thread.
"""

import base64
import binascii
import json
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.error_codes import ErrorCode
from app.errors import Malformed

Row = TypeVar("Row")

# Approximate bytes of JSON after which a page ends; the page may exceed it by one item.
MAX_PAGE_BYTES = 700_000
# Rows fetched at a time.
_FETCHED_AT_ONCE = 10


def fetch_page(
    session: Session,
    query: Select[Row],
    id_column: InstrumentedAttribute[str],
    limit: int,
    cursor: str | None,
    *,
    weigh: Callable[[Row], int] = lambda _: 0,
) -> tuple[list[Row], str | None]:
    """Return one page of `query` and the cursor of the next page.

    Args:
        session: An open session.
        query: Selects one entity; neither ordered nor limited yet.
        id_column: The entity's UUIDv7 id, which orders the list.
        limit: Most rows a page, >= 1.
        cursor: The cursor that came with the previous page; None for the first page.
        weigh: Returns the approximate bytes of JSON of a row beyond 1 kB; for rows whose size has no small limit.

    Raises:
        Malformed: The cursor is not one that this function returned.
    """
    if cursor is not None:
        query = query.where(id_column < _decode(cursor))
    query = query.order_by(id_column.desc()).limit(limit + 1).execution_options(yield_per=_FETCHED_AT_ONCE)
    rows: list[Any] = []
    num_bytes = 0
    with session.scalars(query) as found:
        for row in found:
            if len(rows) == limit or num_bytes > MAX_PAGE_BYTES:
                return rows, _encode(rows[-1].id)
            rows.append(row)
            num_bytes += weigh(row)
    return rows, None


def json_bytes(value: Any) -> int:
    """Return the number of bytes of a value as compact JSON."""
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())


def _encode(last_id: str) -> str:
    return base64.urlsafe_b64encode(uuid.UUID(last_id).bytes).decode().rstrip("=")


def _decode(cursor: str) -> str:
    try:
        return str(uuid.UUID(bytes=base64.b64decode(cursor + "==", altchars=b"-_", validate=True)))
    except (binascii.Error, ValueError):
        raise Malformed("The cursor is not one that this service returned.", code=ErrorCode.BAD_CURSOR) from None

"""Keyset pages over UUIDv7 ids: newest first, stable while rows are inserted, and of a bounded size.

A page ends early where its items are large, so that no list grows with a product of limits; its cursor goes on.
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

# About the bytes of JSON after which a page ends; one item more may be on it.
MAX_PAGE_BYTES = 700_000
# Rows in memory beside those that are kept.
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
        cursor: As handed out with the page before; None for the first page.
        weigh: About how many bytes of JSON become of a row, beside a kilobyte; for rows that have no small bound.

    Raises:
        Malformed: The cursor was not made here.
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
    """Return about how many bytes a value has as JSON."""
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())


def _encode(last_id: str) -> str:
    return base64.urlsafe_b64encode(uuid.UUID(last_id).bytes).decode().rstrip("=")


def _decode(cursor: str) -> str:
    try:
        return str(uuid.UUID(bytes=base64.b64decode(cursor + "==", altchars=b"-_", validate=True)))
    except (binascii.Error, ValueError):
        raise Malformed("The cursor is not one that this service returned.", code=ErrorCode.BAD_CURSOR) from None

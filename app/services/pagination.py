"""Keyset pagination over UUIDv7 ids: newest first, stable while rows are inserted, pages of a bounded size.

A page of large items ends early, so that its size is not the product of two limits; its cursor continues from there.
Imports no schema or resource. Runs inside the caller's session, on the caller's thread.
"""

import base64
import binascii
import json
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, func, literal, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.error_codes import ErrorCode
from app.errors import Malformed

Row = TypeVar("Row")

# Approximate bytes of JSON after which a page ends; the page may exceed it by one item.
MAX_PAGE_BYTES = 700_000
# Most rows that are counted: some milliseconds on either database.
MAX_COUNTED = 10_000
# Rows fetched at a time.
_FETCHED_AT_ONCE = 10
# Rows that one page of a search without an index reads at most: 20 ms of JSON on SQLite, see `bench/console.py`.
MAX_SEARCHED = 5_000


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


def search_page(
    session: Session,
    query: Select[Row],
    condition: ColumnElement[bool],
    id_column: InstrumentedAttribute[str],
    limit: int,
    cursor: str | None,
    *,
    max_read: int = MAX_SEARCHED,
) -> tuple[list[Row], str | None]:
    """Return one page of the rows of `query` that meet a condition which no index answers.

    A page reads at most `max_read` rows, so that its time does not grow with the table. It may therefore be short,
    or empty, and still have a cursor, from which the search goes on.

    Args:
        session: An open session.
        query: As in `fetch_page`.
        condition: What each row is tested for.
        id_column: As in `fetch_page`.
        limit: As in `fetch_page`.
        cursor: As in `fetch_page`.
        max_read: Rows that a page reads at most, >= 1.

    Raises:
        Malformed: As in `fetch_page`.
    """
    if cursor is not None:
        query = query.where(id_column < _decode(cursor))
    ids = query.with_only_columns(id_column, maintain_column_froms=True).order_by(id_column.desc())
    window = ids.limit(max_read).subquery()
    oldest, num_read = session.execute(select(func.min(window.c.id), func.count()).select_from(window)).one()
    if oldest is None:
        return [], None
    found = query.where(id_column >= oldest, condition).order_by(id_column.desc()).limit(limit + 1)
    rows: list[Any] = list(session.scalars(found))
    if len(rows) > limit:
        return rows[:limit], _encode(rows[limit - 1].id)
    return rows, _encode(oldest) if num_read == max_read else None


def matching(
    query: Select[Row],
    *equal: tuple[ColumnElement[Any] | InstrumentedAttribute[Any], object],
    newer: tuple[InstrumentedAttribute[datetime], datetime | None],
) -> Select[Row]:
    """Return a query with the conditions of a list's filters.

    Args:
        query: Selects one entity.
        equal: Columns and the values that they must have; None: any.
        newer: The column of the rows' time, and the time after which they were created; None: any.
    """
    for column, value in equal:
        if value is not None:
            query = query.where(column == value)
    created_at, after = newer
    return query if after is None else query.where(created_at > after)


def count_matches(session: Session, query: Select[Row]) -> int | None:
    """Return how many rows a list has on all of its pages; None for more than `MAX_COUNTED`, which are not counted.

    Args:
        session: An open session.
        query: As `fetch_page` gets it, with its conditions.
    """
    ids = query.with_only_columns(literal(1), maintain_column_froms=True).limit(MAX_COUNTED + 1).subquery()
    found = session.scalar(select(func.count()).select_from(ids)) or 0
    return found if found <= MAX_COUNTED else None


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

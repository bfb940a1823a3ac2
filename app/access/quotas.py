"""Quotas that all nodes share: a caller's pixel-steps of the day, and what is stored of its key.

Work is charged in the transaction that accepts it, so that requests on several nodes at once never exceed the quota
together; what was not done is given back when the work ends. Nothing is written for callers without a quota. Imports
no HTTP; every function runs in the caller's session, on its thread.
"""

import math
from datetime import date, datetime, timedelta

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.access.caller import Caller
from app.db.base import utc_now
from app.db.caller_tables import Usage
from app.db.models import Dataset, Generation, Image, TrainedModel
from app.errors import QuotaExceeded

_DAY_S = 86_400
_BYTES_PER_MB = 1_000_000
# Days whose usage is kept.
_KEPT = timedelta(days=31)


def charge(session: Session, caller: Caller, pixel_steps: int, *, now: datetime | None = None) -> int:
    """Charge work to a caller's day, and check that there is room for its results.

    Args:
        session: The transaction that accepts the work.
        caller: Whose work it is.
        pixel_steps: Images x steps x width x height, >= 0.
        now: The time; default: the present.

    Returns:
        What was charged: `pixel_steps`, or 0 where the caller has no quota of them.

    Raises:
        QuotaExceeded: The quota of the day, or that of stored bytes, is used up.
    """
    refuse_when_stored_full(session, caller)
    limit = caller.shares.pixel_steps_per_day
    if limit is None or pixel_steps == 0:
        return 0
    moment = now or utc_now()
    _add_row(session, caller.id, moment.date())
    row = (Usage.caller == caller.id) & (Usage.day == moment.date())
    fits = row & (Usage.pixel_steps + pixel_steps <= limit)
    charged = session.execute(
        update(Usage).where(fits).values(pixel_steps=Usage.pixel_steps + pixel_steps).returning(Usage.pixel_steps)
    )
    if charged.one_or_none() is None:
        raise _over_the_day(limit, session.scalars(select(Usage.pixel_steps).where(row)).one(), pixel_steps, moment)
    return pixel_steps


def give_back(session: Session, caller_id: str, day: date, pixel_steps: int) -> None:
    """Take work that was charged and not done off a caller's day."""
    if pixel_steps > 0:
        row = (Usage.caller == caller_id) & (Usage.day == day)
        session.execute(update(Usage).where(row).values(pixel_steps=Usage.pixel_steps - pixel_steps))


def refuse_when_stored_full(session: Session, caller: Caller) -> None:
    """Check that a caller has not stored more than it may.

    Callers without a key are one in this: their objects do not tell them apart.

    Raises:
        QuotaExceeded: It has.
    """
    limit = caller.shares.stored_mb
    if limit is None:
        return
    num_bytes = stored_bytes(session, caller.key_id)
    if num_bytes >= limit * _BYTES_PER_MB:
        raise QuotaExceeded(
            f"{num_bytes / _BYTES_PER_MB:.0f} MB of images and models are stored, of {limit} MB that may be. Delete "
            "generations, datasets or models first.",
        )


def stored_bytes(session: Session, key_id: str | None) -> int:
    """Return the bytes of the image files and models that were created with a key; None: without one."""
    images = select(func.sum(Image.num_bytes))
    queries = (
        images.join(Generation, Image.generation_id == Generation.id).where(_owned(Generation.key_id, key_id)),
        images.join(Dataset, Image.dataset_id == Dataset.id).where(_owned(Dataset.key_id, key_id)),
        select(func.sum(TrainedModel.num_bytes)).where(_owned(TrainedModel.key_id, key_id)),
    )
    return sum(int(session.scalar(query) or 0) for query in queries)


def _owned(column: InstrumentedAttribute[str | None], key_id: str | None) -> ColumnElement[bool]:
    return column.is_(None) if key_id is None else column == key_id


def _add_row(session: Session, caller_id: str, day: date) -> None:
    """Add the row of a caller's day if it is not there, and remove days that nobody asks for any more."""
    is_shared = session.get_bind().dialect.name == "postgresql"
    insert = postgresql.insert(Usage) if is_shared else sqlite.insert(Usage)
    new = insert.values(caller=caller_id, day=day, pixel_steps=0).on_conflict_do_nothing().returning(Usage.caller)
    if session.execute(new).one_or_none() is not None:
        session.execute(delete(Usage).where(Usage.day < day - _KEPT))


def _over_the_day(limit: int, used: int, asked: int, now: datetime) -> QuotaExceeded:
    midnight = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), tzinfo=now.tzinfo)
    wait_s = max(1, math.ceil((midnight - now).total_seconds()))
    left = max(0, limit - used)
    detail = f"{left:,} of {limit:,} pixel-steps are left until midnight UTC, and the request takes {asked:,}."
    headers = {
        "RateLimit-Policy": f'"pixel-steps";q={limit};w={_DAY_S}',
        "RateLimit": f'"pixel-steps";r={left};t={wait_s}',
    }
    if asked > limit:
        return QuotaExceeded(f"{detail} No day has so many.", headers=headers)
    return QuotaExceeded(detail, retry_after_s=wait_s, headers=headers)

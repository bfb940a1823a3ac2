"""Retention: removes generations that are older than a limit, and the oldest ones beyond a total size.

What must stay is defined in `kept_images.py`; how rows and files are deleted, in `removal.py`. Generations are read and
deleted in pages of one short transaction each, oldest first. After each page, a prune pauses as long as its transaction
took, since on SQLite others ask for the lock in growing intervals. Imports no job and no engine. Runs on the caller's
thread, in the worker or in `foxhound storage prune`; any number of processes may prune at once.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

from sqlalchemy import ColumnElement, Row, Select, and_, func, or_, select
from sqlalchemy.orm import Session

from app.db.base import utc_now
from app.db.models import Generation, Image
from app.db.session import Database
from app.services.store.kept_images import KeptImages
from app.services.store.removal import finish_removals, forget_generations, remove_files
from app.storage.layout import DataFolder

GIGABYTE = 1_000_000_000

# Generations, and about how many images, that one transaction deletes. On SQLite it takes a few ms besides its fsync.
_DELETED_AT_ONCE = 32
_IMAGES_AT_ONCE = 64
# Generations in one read.
_READ_AT_ONCE = 1_000
# Longest pause between two pages, in seconds.
_MAX_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Retention:
    """How long and how much is kept; the settings `FOXHOUND_KEEP_IMAGES_DAYS` and `FOXHOUND_KEEP_IMAGES_GB`.

    Attributes:
        days: Age up to which generated images are kept, in days, >= 0; None: no limit.
        gigabytes: Total size of the files of generated images, in units of 10^9 bytes, >= 0; None: no limit.
    """

    days: float | None = None
    gigabytes: float | None = None

    @property
    def is_limited(self) -> bool:
        """Whether anything may be removed."""
        return self.days is not None or self.gigabytes is not None


@dataclass(slots=True)
class Removed:
    """What a prune removed or, as a dry run, would remove.

    Attributes:
        generations: Number of generations.
        images: Number of their images.
        bytes: Total size of the images' files, in bytes.
        oldest: When the oldest of the generations was recorded; None if there is none.
        newest: When the newest of them was recorded.
    """

    generations: int = 0
    images: int = 0
    bytes: int = 0
    oldest: datetime | None = None
    newest: datetime | None = None

    def add(self, other: "Removed") -> None:
        """Add what was removed after all that is counted here."""
        self.generations += other.generations
        self.images += other.images
        self.bytes += other.bytes
        self.oldest = self.oldest or other.oldest
        self.newest = other.newest or self.newest


@dataclass(frozen=True, slots=True, order=True)
class _Place:
    """A place in the order of removal: by time of the record, then by id."""

    created_at: datetime
    id: str = ""


@dataclass(frozen=True, slots=True)
class _Page:
    """Some generations in the order of removal, without those that must stay."""

    last: _Place
    ids: list[str] = field(default_factory=list)
    removed: Removed = field(default_factory=Removed)


Record = Callable[[Session, Removed], None]
Pause = Callable[[float], object]


def would_remove(db: Database, retention: Retention, *, now: Callable[[], datetime] = utc_now) -> Removed:
    """Return what `prune` would remove now; changes nothing."""
    found, kept = Removed(), KeptImages()
    limit = _limit(db, retention, now())
    after = None
    while limit is not None:
        with db.snapshot() as session:
            page = _page(session, _oldest(limit, after, _READ_AT_ONCE), kept)
        if page is None:
            break
        found.add(page.removed)
        after = page.last
    return found


def prune(
    db: Database,
    folder: DataFolder,
    retention: Retention,
    *,
    record: Record = lambda _session, _removed: None,
    pause: Pause = time.sleep,
    now: Callable[[], datetime] = utc_now,
) -> Removed:
    """Remove what exceeds the limits, oldest first, and finish removals that a killed process has left.

    Args:
        db: The database with the records.
        folder: The data folder, with its reserve.
        retention: The limits.
        record: Called in the transaction of each page with what the page removes.
        pause: Waits some seconds; called after each page. An exception of it ends the prune between two pages.
        now: Returns the current time.

    Returns:
        What this call removed; what another prune removes at the same time counts there.

    Raises:
        Unavailable, StorageFull: The database or the storage cannot be written. All pages before are done.
    """
    finish_removals(db, folder)
    removed, kept = Removed(), KeptImages()
    limit = _limit(db, retention, now())
    after = None
    while limit is not None:
        begun_at = time.monotonic()
        page, paths = folder.reserve.spend(partial(_forget_page, db, limit, after, kept, record))
        took_s = time.monotonic() - begun_at
        if page is None:
            break
        if paths:
            remove_files(db, folder, paths)
        removed.add(page.removed)
        after = page.last
        pause(min(took_s, _MAX_PAUSE_S))
    return removed


def _forget_page(
    db: Database, limit: _Place, after: _Place | None, kept: KeptImages, record: Record
) -> tuple[_Page | None, list[str]]:
    """Delete the records of the next generations; return the page, None after the last, and the files to remove."""
    with db.transaction() as session:
        # Rows that another prune or a DELETE has locked are left to it.
        query = _oldest(limit, after, _DELETED_AT_ONCE)
        locked = session.execute(query.with_for_update(skip_locked=True)).all()
        page = _page_of(session, _few_images(session, locked), kept)
        if page is None or not page.ids:
            return page, []
        record(session, page.removed)
        return page, forget_generations(session, page.ids)


def _few_images(session: Session, rows: Sequence[Row[str, datetime]]) -> Sequence[Row[str, datetime]]:
    """Return the first of these generations with about `_IMAGES_AT_ONCE` images in all, at least one generation."""
    of_these = Image.generation_id.in_([row.id for row in rows])
    counts = select(Image.generation_id, func.count()).where(of_these).group_by(Image.generation_id)
    num_images = {row[0]: row[1] for row in session.execute(counts)}
    total = 0
    for index, row in enumerate(rows):
        if total >= _IMAGES_AT_ONCE:
            return rows[:index]
        total += num_images.get(row.id, 0)
    return rows


def _limit(db: Database, retention: Retention, now: datetime) -> _Place | None:
    """Return the place up to which generations are removed; None if nothing is."""
    places: list[_Place | None] = []
    if retention.days is not None:
        places.append(_Place(_days_before(now, retention.days)))
    if retention.gigabytes is not None:
        places.append(_place_beyond(db, retention.gigabytes * GIGABYTE))
    return max((place for place in places if place is not None), default=None)


def _days_before(now: datetime, days: float) -> datetime:
    try:
        return now - timedelta(days=days)
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)


def _place_beyond(db: Database, max_bytes: float) -> _Place | None:
    """Return the newest generation that no longer fits, counted from the newest one; None if all fit.

    Counted from this end, the place does not depend on what another prune removes meanwhile.
    """
    num_bytes, before = 0, None
    while True:
        total = select(func.sum(Image.num_bytes)).where(Image.generation_id == Generation.id).scalar_subquery()
        query = select(Generation.created_at, Generation.id, total.label("num_bytes"))
        if before is not None:
            query = query.where(_is_before(before))
        query = query.order_by(Generation.created_at.desc(), Generation.id.desc()).limit(_READ_AT_ONCE)
        with db.snapshot() as session:
            rows = session.execute(query).all()
        for row in rows:
            num_bytes += row.num_bytes or 0
            before = _Place(row.created_at, row.id)
            if num_bytes > max_bytes:
                return before
        if not rows:
            return None


def _oldest(limit: _Place, after: _Place | None, number: int) -> Select[str, datetime]:
    query = select(Generation.id, Generation.created_at).where(or_(_is_before(limit), Generation.id == limit.id))
    if after is not None:
        query = query.where(
            Generation.created_at >= after.created_at,
            or_(Generation.created_at > after.created_at, Generation.id > after.id),
        )
    return query.order_by(Generation.created_at, Generation.id).limit(number)


def _is_before(place: _Place) -> ColumnElement[bool]:
    return and_(
        Generation.created_at <= place.created_at,
        or_(Generation.created_at < place.created_at, Generation.id < place.id),
    )


def _page(session: Session, query: Select[str, datetime], kept: KeptImages) -> _Page | None:
    return _page_of(session, session.execute(query).all(), kept)


def _page_of(session: Session, rows: Sequence[Row[str, datetime]], kept: KeptImages) -> _Page | None:
    """Return these generations without those that must stay; None if there is none at all."""
    if not rows:
        return None
    last = _Place(rows[-1].created_at, rows[-1].id)
    staying = kept.among(session, [row.id for row in rows])
    free = [row for row in rows if row.id not in staying]
    if not free:
        return _Page(last)
    ids = [row.id for row in free]
    sizes = select(func.count(), func.coalesce(func.sum(Image.num_bytes), 0)).where(Image.generation_id.in_(ids))
    num_images, num_bytes = session.execute(sizes).one()
    removed = Removed(len(ids), num_images, int(num_bytes), free[0].created_at, free[-1].created_at)
    return _Page(last, ids, removed)

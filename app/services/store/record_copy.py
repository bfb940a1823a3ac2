"""A copy of all records from one database to another of the same version: from SQLite to Postgres, or back.

It uses one transaction on each side; an interrupted copy leaves the target without records and may be repeated. The job
engine's tables are not copied, because the recorded steps of a job are valid on their own database only. So an
unfinished job starts again on the target, where it finds the images that it has recorded. No node may run on the source
meanwhile. Imports no storage and no engine. Runs on the main thread of `foxhound migrate`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, Table, delete, func, insert, select
from sqlalchemy.orm import Session

from app.db.base import Base, utc_now
from app.db.models import ACTIVE_JOB_STATUSES, Job, Store, TrainEpoch, Worker
from app.db.picture_tables import DatasetShot, InitImage
from app.db.session import Database
from app.jobs.queue import JobQueue
from app.services.jobs.kinds import JOB_KINDS

# Rows in memory at a time; an image's row has one to two kilobytes.
_PAGE = 1_000
# A picture has up to 4 MB.
_PICTURE_PAGE = 10
_PICTURE_TABLES = (InitImage.__table__, DatasetShot.__table__)
# A running worker updates its row several times a minute, and deletes it when it ends.
_SILENT_S = 120.0

Progress = Callable[[str], None]


class CopyRefused(Exception):
    """The records cannot be copied; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Copied:
    """The result of a copy: the number of rows, and of the jobs among them that start again."""

    num_rows: int
    num_active: int


def copy_records(source: str, target: str, *, on_progress: Progress) -> Copied:
    """Copy every record. The caller holds the migration locks of both databases; both are at the newest schema.

    Args:
        source: URL of the database that is read.
        target: URL of a database without records; its store id is replaced by the source's.
        on_progress: Called with a line of text for every page and table.

    Raises:
        CopyRefused: The target has records, or a worker runs on the source.
    """
    old, new = Database(source, pool_size=2), Database(target, pool_size=2)
    queue = JobQueue(new, target, JOB_KINDS)
    try:
        with old.snapshot() as reading, new.transaction() as writing:
            _refuse_workers(reading)
            _refuse_records(writing)
            num_rows = sum(
                _copy_table(reading.connection(), writing.connection(), table, on_progress)
                for table in Base.metadata.sorted_tables
                if table is not Worker.__table__
            )
            return Copied(num_rows, _begin_again(writing, queue))
    finally:
        queue.close()
        old.close()
        new.close()


def _refuse_workers(session: Session) -> None:
    alive = select(Worker.id).where(Worker.beat_at > utc_now() - timedelta(seconds=_SILENT_S)).limit(1)
    if session.scalar(alive) is not None:
        raise CopyRefused(
            "A worker runs on the source database, or was killed less than two minutes ago. Stop its node first."
        )


def _refuse_records(session: Session) -> None:
    for table in Base.metadata.sorted_tables:
        if table is not Store.__table__ and session.execute(select(table).limit(1)).first() is not None:
            raise CopyRefused(f"The target has records already, in its table {table.name}. Choose an empty database.")
    session.execute(delete(Store))


def _copy_table(reading: Connection, writing: Connection, table: Table, on_progress: Progress) -> int:
    total, num = reading.scalar(select(func.count()).select_from(table)) or 0, 0
    page_size = _PICTURE_PAGE if table in _PICTURE_TABLES else _PAGE
    rows = reading.execution_options(yield_per=page_size).execute(select(table).order_by(*table.primary_key))
    for page in rows.mappings().partitions():
        writing.execute(insert(table), [dict(row) for row in page])
        num += len(page)
        on_progress(f"{table.name}: {num} of {total}")
    return num


def _begin_again(session: Session, queue: JobQueue) -> int:
    """Queue every unfinished job from its first step, with its progress reset; a paused job stays paused."""
    active = session.scalars(select(Job).where(Job.status.in_(ACTIVE_JOB_STATUSES)).order_by(Job.id)).all()
    for job in active:
        session.execute(delete(TrainEpoch).where(TrainEpoch.job_id == job.id))  # the job records them again
        job.progress_done, job.attempts, job.pace, job.started_at = 0, 0, [], None
        if job.status == "running":
            job.status = "queued"
        job.version += 1
        session.flush()
        queue.enqueue(session, job)
    return len(active)

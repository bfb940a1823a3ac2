"""The daily removal of old generated images, by one worker of all nodes that share a database.

A day (in UTC) belongs to the worker that inserts its row into `prune_runs`. If that worker dies before the run has
ended, its row in `workers` disappears, and another worker continues the run. Imports no job engine. Runs in the worker
process, on a thread of its own; other threads and processes may prune meanwhile.
"""

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.db.base import utc_now
from app.db.models import PruneRun, Worker
from app.db.session import Database
from app.services.store.retention import Removed, Retention, prune
from app.storage.layout import DataFolder

logger = logging.getLogger(__name__)

# Days whose rows are kept; `foxhound storage report` shows the last one.
_DAYS_KEPT = 30


class Stopped(Exception):
    """The worker ends; another one continues the run."""


class DailyPrune:
    """Prunes once a day, if there is a limit."""

    def __init__(
        self,
        db: Database,
        folder: DataFolder,
        retention: Retention,
        worker_id: str,
        *,
        interval_s: float = 5.0,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """Describe the task; nothing is read yet.

        Args:
            db: The database of the records and of the workers' rows.
            folder: The data folder, with its reserve.
            retention: What is kept; all nodes should have the same limits.
            worker_id: The id of this process's worker, whose row in `workers` shows that it is alive.
            interval_s: Time between two looks whether there is a run to start or to continue, in seconds, > 0.
            now: Returns the current time.
        """
        self._db = db
        self._folder = folder
        self._retention = retention
        self._worker_id = worker_id
        self._interval_s = interval_s
        self._now = now
        self._finished_day = ""

    def watch(self, stop: threading.Event) -> None:
        """Look for a run to do until `stop` is set."""
        while self._retention.is_limited:
            try:
                self.round(stop)
            except Stopped:
                return
            except Exception:
                logger.exception("The daily removal of images failed. It continues in %.1f s.", self._interval_s)
            if stop.wait(self._interval_s):
                return

    def round(self, stop: threading.Event) -> None:
        """Do today's run, unless another worker has done it or does it.

        Raises:
            Stopped: `stop` was set before the end.
            Unavailable, StorageFull: The database or the storage cannot be written; the next round continues.
        """
        day = self._now().astimezone(UTC).date().isoformat()
        if day == self._finished_day:
            return
        if not self._is_finished(day):
            if not self._folder.reserve.spend(lambda: self._claim(day)):
                return
            self._run(day, stop)
        self._finished_day = day

    def _is_finished(self, day: str) -> bool:
        with self._db.snapshot() as session:
            run = session.get(PruneRun, day)
            return run is not None and run.finished_at is not None

    def _claim(self, day: str) -> bool:
        """Take today's run if it belongs to nobody or to a dead worker; return whether it is this worker's."""
        with self._db.transaction() as session:
            if session.get(Worker, self._worker_id) is None:  # another worker would take the run over at once
                return False
            run = session.get(PruneRun, day, with_for_update=True)
            if run is None:
                return self._begin(session, day)
            if run.worker_id != self._worker_id and session.get(Worker, run.worker_id) is None:
                run.worker_id = self._worker_id
            return run.worker_id == self._worker_id and run.finished_at is None

    def _begin(self, session: Session, day: str) -> bool:
        old = select(PruneRun.day).order_by(PruneRun.day.desc()).offset(_DAYS_KEPT - 1)
        session.execute(delete(PruneRun).where(PruneRun.day.in_(session.scalars(old).all())))
        row = {"day": day, "worker_id": self._worker_id, "started_at": self._now()}
        try:
            with session.begin_nested():
                session.execute(insert(PruneRun).values(**row))
        except IntegrityError:  # another worker has begun the day's run meanwhile
            return False
        return True

    def _run(self, day: str, stop: threading.Event) -> None:
        def record(session: Session, removed: Removed) -> None:
            session.execute(
                update(PruneRun)
                .where(PruneRun.day == day)
                .values(
                    num_generations=PruneRun.num_generations + removed.generations,
                    num_images=PruneRun.num_images + removed.images,
                    num_bytes=PruneRun.num_bytes + removed.bytes,
                )
            )

        def pause(seconds: float) -> None:
            if stop.wait(seconds):
                raise Stopped

        removed = prune(self._db, self._folder, self._retention, record=record, pause=pause, now=self._now)
        self._folder.reserve.spend(lambda: self._finish(day))
        logger.info(
            "The daily removal of images has ended: %d images of %d generations, %.1f MB.",
            removed.images,
            removed.generations,
            removed.bytes / 1e6,
        )

    def _finish(self, day: str) -> None:
        with self._db.transaction() as session:
            session.execute(update(PruneRun).where(PruneRun.day == day).values(finished_at=self._now()))

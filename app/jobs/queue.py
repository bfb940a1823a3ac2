"""Handing work over: a job row and its place in the queue, in one transaction. Runs in the API process.

Runs no job itself and knows only the names of the kinds.
"""

import logging
from collections.abc import Callable, Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db.base import new_id
from app.db.models import Job, active_jobs
from app.db.outages import is_outage
from app.db.session import Database
from app.error_codes import ErrorCode
from app.errors import Conflict, NotFound, QueueFull
from app.jobs import durable, record
from app.jobs.handler import JobKind, Json

MAX_WAITING = 10_000
_RETRY_AFTER_S = 30
logger = logging.getLogger(__name__)


class JobQueue:
    """Where services leave jobs and ask for their end; any thread may use it."""

    def __init__(
        self,
        db: Database,
        database_url: str,
        kinds: Sequence[JobKind],
        *,
        max_waiting: int = MAX_WAITING,
        check_room: Callable[[], None] = lambda: None,
    ) -> None:
        """Open the queue; nothing is connected yet.

        Args:
            db: Where the job rows are.
            database_url: The same database; the job engine's tables stand beside the rows.
            kinds: Every kind of job that may be submitted.
            max_waiting: Jobs that may be queued or paused before new ones are refused, >= 1. Of transactions side by
                side on Postgres none sees the others' jobs: each API process may exceed it by its connections.
            check_room: Asked before each new job; raises where there is no room for what it will make.
        """
        self._db = db
        self._max_waiting = max_waiting
        self._check_room = check_room
        self._kinds = {kind.kind: kind for kind in kinds}
        self._client = durable.JobEngineClient(database_url)

    def submit(
        self,
        session: Session,
        *,
        kind: str,
        spec: dict[str, Json],
        total: int,
        unit: str,
        job_id: str | None = None,
        priority: int = 0,
        retry_of: str | None = None,
    ) -> Job:
        """Add a job in the caller's transaction: with its commit the job exists and is queued, or neither.

        Args:
            session: A writing transaction of the same database.
            kind: One of the kinds that the queue was made with.
            spec: What to do, as plain JSON.
            total: Units of work, >= 0; the handler may correct it.
            unit: What progress counts, e.g. `images`.
            job_id: Default: a new id.
            priority: -100 .. 100; of the jobs that wait, and of their chunks, the highest go first.
            retry_of: The id of the job that this one does again.

        Raises:
            QueueFull: As many jobs wait as may.
            AppError: There is no room for what it will make.
        """
        self._check_room()
        self._refuse_when_full(session)
        job = Job(
            id=job_id or new_id(),
            kind=kind,
            spec=spec,
            progress_total=total,
            progress_unit=unit,
            priority=priority,
            retry_of=retry_of,
        )
        session.add(job)
        session.flush()
        self.enqueue(session, job)
        return job

    def enqueue(self, session: Session, job: Job) -> None:
        """Give a job, whose row is in the database already, its place in the queue; once for each job."""
        self._client.enqueue_in_transaction(
            session,
            {
                "workflow_name": durable.JOB_WORKFLOW,
                "queue_name": self._kinds[job.kind].queue,
                "workflow_id": durable.job_workflow_id(job.id),
                "app_version": durable.JOBS_VERSION,
                "priority": durable.place(job.priority),
            },
            job.id,
        )

    def cancel(self, job_id: str) -> Job:
        """Ask a job to stop and return it: a queued one is cancelled already, a running one stops soon.

        Raises:
            NotFound: There is no such job.
        """
        with self._db.transaction() as session:
            return _found(record.request_cancel(session, job_id, self._on_end))

    def pause(self, job_id: str) -> Job:
        """Ask a job to rest and return it: a queued one is paused already, a running one at its next image.

        Raises:
            NotFound: There is no such job.
        """
        with self._db.transaction() as session:
            return _found(record.request_pause(session, job_id))

    def resume(self, job_id: str) -> Job:
        """Let a paused job go on where it was and return it; any other one stays as it is.

        Raises:
            NotFound: There is no such job.
        """
        with self._db.transaction() as session:
            job = _found(record.request_wake(session, job_id))
        if job.status == "queued" and job.wake_requested:
            self._wake(job)
        return job

    def retry(self, session: Session, job_id: str, *, priority: int = 0, changes: dict[str, Json] | None = None) -> Job:
        """Add a job that does again what a failed or cancelled one left undone, in the caller's transaction.

        Args:
            session: The transaction.
            job_id: The job to do again.
            priority: As of `submit`.
            changes: What differs in the new job's spec; given, a job that has succeeded is done again as well.

        Raises:
            NotFound: There is no such job.
            Conflict: It has not failed, or its work cannot be done any more.
            QueueFull: As many jobs wait as may.
        """
        old = _found(session.get(Job, job_id))
        if old.status not in ("failed", "cancelled") and changes is None:
            raise Conflict(
                f"The job is {old.status}. Only a failed, cancelled or incomplete one can be retried.",
                code=ErrorCode.JOB_NOT_FAILED,
            )
        retry_id = new_id()
        self._kinds[old.kind].before_retry(session, old, retry_id)
        return self.submit(
            session,
            kind=old.kind,
            spec={**old.spec, **(changes or {})},
            total=old.progress_total,
            unit=old.progress_unit,
            job_id=retry_id,
            priority=priority,
            retry_of=old.id,
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.destroy()

    def _refuse_when_full(self, session: Session) -> None:
        """Count no further than the bound, in the index of active jobs: some 2 ms for 10,000."""
        waiting = select(Job.id).where(active_jobs(), Job.status != "running").limit(self._max_waiting)
        num_waiting = session.scalar(select(func.count()).select_from(waiting.subquery())) or 0
        if num_waiting >= self._max_waiting:
            detail = (
                f"{self._max_waiting} jobs are waiting, the most that are accepted. Try again later, or cancel some."
            )
            raise QueueFull(detail, retry_after_s=_RETRY_AFTER_S)

    def _wake(self, job: Job) -> None:
        """Queue a job's workflow again; should that not happen, a worker's reaper finds the wish in the row."""
        try:
            self._client.resume_workflow(durable.job_workflow_id(job.id), queue_name=self._kinds[job.kind].queue)
        except Exception as error:
            if not is_outage(error):
                raise
            logger.warning("The database went away while job %s was resumed; a worker goes on with it.", job.id)

    def _on_end(self, session: Session, job: Job) -> None:
        self._kinds[job.kind].on_end(session, job)


def _found(job: Job | None) -> Job:
    if job is None:
        raise NotFound("There is no job with this id.")
    return job

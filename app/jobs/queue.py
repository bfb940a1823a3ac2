"""Submits, cancels, pauses, resumes and retries jobs: a job's row and its queue entry change in one transaction.

Runs in the API process, on any thread. Runs no job, and imports no kind: kinds are handed in.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.access.caller import LOCAL, Caller
from app.access.quotas import charge
from app.db.base import new_id
from app.db.models import Job, active_jobs
from app.db.outages import is_outage
from app.db.session import Database
from app.error_codes import ErrorCode
from app.errors import Conflict, NotFound, QueueFull
from app.jobs import durable, record
from app.jobs.handler import JobKind
from app.jobs.signals import Json
from app.logs.context import request_id

MAX_WAITING = 10_000
_RETRY_AFTER_S = 30
logger = logging.getLogger(__name__)


class JobQueue:
    """The queue of jobs as services use it; any thread may use it."""

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
            db: The database of the job rows.
            database_url: The same database, which has the job engine's tables too.
            kinds: Every kind of job that may be submitted.
            max_waiting: Jobs that may be queued or paused before new ones are refused, >= 1. Concurrent transactions
                on Postgres do not see each other's jobs: an API process may exceed it by the number of its connections.
            check_room: Called before each new job; raises if the disk has no room for what the job will make.
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
        caller: Caller = LOCAL,
        pixel_steps: int = 0,
    ) -> Job:
        """Add a job in the caller's transaction: after its commit the job exists and is queued.

        Args:
            session: A writing transaction of the same database.
            kind: One of the kinds that the queue was made with.
            spec: What to do, as plain JSON.
            total: Units of work, >= 0; the handler may correct it.
            unit: The unit of progress, for example `images`.
            job_id: Default: a new id.
            priority: -100 .. 100; of waiting jobs, and of their chunks, the highest go first.
            retry_of: The id of the job that this one retries.
            caller: Whose job it is: it belongs to his API key, and callers share the workers and the engine evenly.
            pixel_steps: What is charged to the caller's day; what the job does not do is given back at its end.

        Raises:
            QueueFull: The limit of waiting jobs is reached.
            QuotaExceeded: The caller has used up a quota.
            AppError: The disk has no room for what the job will make.
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
            key_id=caller.key_id,
            caller=caller.id,
            pixel_steps=charge(session, caller, pixel_steps) if pixel_steps else 0,
            request_id=request_id() or None,
        )
        session.add(job)
        session.flush()
        self.enqueue(session, job)
        return job

    def enqueue(self, session: Session, job: Job) -> None:
        """Add the queue entry of a job whose row exists already; once for each job.

        Jobs of one priority begin in turns of their callers: the second job of each caller before anybody's third.
        """
        queue = self._kinds[job.kind].queue
        num_before = self._count_active(session, job)
        self._client.enqueue_in_transaction(
            session,
            {
                "workflow_name": durable.JOB_WORKFLOW,
                "queue_name": durable.FIRST_QUEUE if queue == durable.JOB_QUEUE and not num_before else queue,
                "workflow_id": durable.job_workflow_id(job.id),
                "app_version": durable.JOBS_VERSION,
                "priority": durable.dbos_priority(job.priority, num_before),
            },
            job.id,
        )

    def cancel(self, job_id: str) -> Job:
        """Request that a job stops, and return it: a queued one is cancelled at once, a running one at its next image.

        Raises:
            NotFound: There is no such job.
        """
        with self._db.transaction() as session:
            return _found(record.request_cancel(session, job_id, self._on_end))

    def pause(self, job_id: str) -> Job:
        """Request that a job pauses, and return it: a queued one is paused at once, a running one at its next image.

        Raises:
            NotFound: There is no such job.
        """
        with self._db.transaction() as session:
            return _found(record.request_pause(session, job_id))

    def resume(self, job_id: str) -> Job:
        """Let a paused job continue from its recorded work, and return it; any other job is left unchanged.

        Raises:
            NotFound: There is no such job.
        """
        with self._db.transaction() as session:
            job = _found(record.request_resume(session, job_id))
        if job.status == "queued" and job.wake_requested:
            self._resume_workflow(job)
        return job

    def retry(
        self,
        session: Session,
        job_id: str,
        *,
        priority: int = 0,
        changes: dict[str, Json] | None = None,
        caller: Caller = LOCAL,
    ) -> Job:
        """Add a job that completes the work of a failed or cancelled one, in the caller's transaction.

        It belongs to the API key of the old one, whoever retries it.

        Args:
            session: The transaction.
            job_id: The job to retry.
            priority: As for `submit`.
            changes: Members of the new job's spec that differ; if given, a succeeded job may be retried too.
            caller: Whose request it is, for the turns of callers.

        Raises:
            NotFound: There is no such job.
            Conflict: The job has not failed, or its work cannot be done any more.
            QueueFull: The limit of waiting jobs is reached.
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
            caller=replace(caller, key_id=old.key_id),
            pixel_steps=record.unmade_pixel_steps(old),
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.destroy()

    def _refuse_when_full(self, session: Session) -> None:
        """Count the waiting jobs up to the limit, in the index of active jobs: some 2 ms for 10,000."""
        waiting = select(Job.id).where(active_jobs(), Job.status != "running").limit(self._max_waiting)
        num_waiting = session.scalar(select(func.count()).select_from(waiting.subquery())) or 0
        if num_waiting >= self._max_waiting:
            detail = (
                f"{self._max_waiting} jobs are waiting, the most that are accepted. Try again later, or cancel some."
            )
            raise QueueFull(detail, retry_after_s=_RETRY_AFTER_S)

    def _count_active(self, session: Session, job: Job) -> int:
        """Count the other jobs of a job's caller that have not ended, of the kinds on the same queue."""
        queue = self._kinds[job.kind].queue
        kinds = [kind.kind for kind in self._kinds.values() if kind.queue == queue]
        others = select(func.count()).where(
            active_jobs(), Job.caller == job.caller, Job.kind.in_(kinds), Job.id != job.id
        )
        return session.scalar(others) or 0

    def _resume_workflow(self, job: Job) -> None:
        """Queue a job's workflow again; after an outage here, a worker's reaper does it (`wake_requested` is set)."""
        try:
            self._client.resume_workflow(durable.job_workflow_id(job.id), queue_name=self._kinds[job.kind].queue)
        except Exception as error:
            if not is_outage(error):
                raise
            logger.warning("The database became unavailable while job %s was resumed. A worker will resume it.", job.id)

    def _on_end(self, session: Session, job: Job) -> None:
        self._kinds[job.kind].on_end(session, job)


def _found(job: Job | None) -> Job:
    if job is None:
        raise NotFound("There is no job with this id.")
    return job

"""Lists, reads, cancels, pauses, resumes and retries jobs of every kind. Runs in the API process, on threads."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from pydantic import TypeAdapter
from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from app.access.caller import Caller
from app.access.visibility import seen
from app.db.models import Job
from app.db.session import Database
from app.errors import NotFound
from app.jobs.queue import JobQueue
from app.jobs.record import ENDED
from app.schemas.common import Response
from app.schemas.jobs import JobPage, JobRead, JobSummary
from app.schemas.progress import Progress
from app.services.datasets.slots import retry_changes
from app.services.jobs.idempotency import Submission, accept, recall
from app.services.pagination import count_matches, fetch_page, matching
from app.storage.reserve import Reserve

KindOfJob = TypeVar("KindOfJob", bound=Response)

_JOB: TypeAdapter[JobRead] = TypeAdapter(JobRead)
_SUMMARY: TypeAdapter[JobSummary] = TypeAdapter(JobSummary)


class JobService:
    """Every kind of background job."""

    def __init__(self, db: Database, jobs: JobQueue, reserve: Reserve) -> None:
        """Use these services; cancelling spends `reserve`, so that it works on a full disk too."""
        self._db = db
        self._jobs = jobs
        self._reserve = reserve

    def page(
        self,
        limit: int,
        cursor: str | None,
        caller: Caller,
        *,
        kind: str | None = None,
        status: str | None = None,
        dataset_id: str | None = None,
        created_after: datetime | None = None,
    ) -> JobPage:
        """Return a page of the jobs that a caller sees, newest first; of those that match what is given."""
        query = matching(
            select(Job).where(seen(Job.key_id, caller)).options(defer(Job.spec, raiseload=True)),
            (Job.kind, kind),
            (Job.status, status),
            (Job.spec["dataset_id"].as_string(), dataset_id),
            newer=(Job.created_at, created_after),
        )
        with self._db.snapshot() as session:
            rows, next_cursor = fetch_page(session, query, Job.id, limit, cursor)
            items = [job_summary(row) for row in rows]
            return JobPage(items=items, next_cursor=next_cursor, total=count_matches(session, query))

    def read(self, job_id: str) -> JobRead:
        """Return one job.

        Raises:
            NotFound: There is none with this id.
        """
        with self._db.snapshot() as session:
            job = session.get(Job, job_id)
            if job is None:
                raise NotFound("There is no job with this id.")
            return job_read(job)

    def watch(self, job_id: str) -> JobSummary:
        """Return one job in the form of its events.

        Raises:
            NotFound: There is none with this id.
        """
        with self._db.snapshot() as session:
            job = session.get(Job, job_id, options=[defer(Job.spec, raiseload=True)])
            if job is None:
                raise NotFound("There is no job with this id.")
            return job_summary(job)

    def versions(self, job_ids: Collection[str]) -> dict[str, int]:
        """Return the versions of those of these jobs that exist; every change of a job increases its version."""
        with self._db.snapshot() as session:
            rows = session.execute(select(Job.id, Job.version).where(Job.id.in_(job_ids)))
            return {row.id: row.version for row in rows}

    def cancel(self, job_id: str) -> JobRead:
        """Cancel a job; a finished one is left unchanged.

        Raises:
            NotFound: There is none with this id.
        """
        return job_read(self._reserve.spend(lambda: self._jobs.cancel(job_id)))

    def pause(self, job_id: str) -> JobRead:
        """Pause a job; a finished or paused one is left unchanged.

        Raises:
            NotFound: There is none with this id.
        """
        return job_read(self._jobs.pause(job_id))

    def resume(self, job_id: str) -> JobRead:
        """Resume a paused job; any other is left unchanged.

        Raises:
            NotFound: There is none with this id.
        """
        return job_read(self._jobs.resume(job_id))

    def recall(self, submission: Submission) -> None:
        """Return if the submission's key is new; see `idempotency.recall`."""
        recall(self._db, submission)

    def retry(self, job_id: str, submission: Submission) -> JobRead:
        """Accept another job that completes a failed or cancelled one, or one that left a dataset incomplete.

        Raises:
            NotFound: There is none with this id.
            Conflict: It has not failed, or its work cannot be done any more.
        """
        return accept(
            self._db,
            submission,
            lambda session: job_read(self._retry(session, job_id, submission)),
            location=lambda job: f"/jobs/{job.id}",
        )

    def _retry(self, session: Session, job_id: str, submission: Submission) -> Job:
        job = session.get(Job, job_id)
        changes = retry_changes(session, job) if job is not None and job.status in ENDED else None
        return self._jobs.retry(
            session, job_id, priority=submission.priority, changes=changes, caller=submission.caller
        )


def progress_read(job: Job) -> Progress:
    """Return a job's progress, its rate and the estimated time of its end.

    All values are computed from the row, so that every process shows the same for one version of a job.
    """
    rate = _rate_per_s(job.pace) if job.status == "running" else None
    left = max(job.progress_total - job.progress_done, 0)
    end = None if rate is None else datetime.fromtimestamp(job.pace[-1][0], UTC) + timedelta(seconds=left / rate)
    return Progress(
        done=job.progress_done,
        total=job.progress_total,
        unit=job.progress_unit,
        phase=job.progress_phase,
        rate_per_minute=None if rate is None else round(60 * rate, 3),
        estimated_finish_at=end,
    )


def job_read(job: Job) -> JobRead:
    """Return a job in the form of `GET /jobs/{id}`."""
    return _JOB.validate_python({**_fields(job), "spec": job.spec})


def job_read_as(model: type[KindOfJob], job: Job) -> KindOfJob:
    """Return a job of a known kind in the form of `GET /jobs/{id}`."""
    return model.model_validate({**_fields(job), "spec": job.spec})


def job_summary(job: Job) -> JobSummary:
    """Return a job in the form of lists and events; its spec is not read."""
    return _SUMMARY.validate_python(_fields(job))


def _fields(job: Job) -> dict[str, Any]:
    columns = ("id", "kind", "status", "version", "priority", "retry_of", "request_id", "result", "error", "attempts")
    times = ("created_at", "started_at", "finished_at")
    return {**{name: getattr(job, name) for name in (*columns, *times)}, "progress": progress_read(job)}


def _rate_per_s(pace: list[Any]) -> float | None:
    """Return the units per second between the first and the last moment; None without two different moments."""
    if len(pace) < 2:
        return None
    (began_at, before), (ended_at, after) = pace[0], pace[-1]
    return (after - before) / (ended_at - began_at) if ended_at > began_at and after > before else None

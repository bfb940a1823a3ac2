"""Background jobs as their users see them: list, read, cancel."""

from typing import Any

from sqlalchemy import select

from app.db.models import Job
from app.db.session import Database
from app.errors import NotFound
from app.jobs.queue import JobQueue
from app.schemas.common import Page
from app.schemas.jobs import JobRead, Progress
from app.services.paging import fetch_page


class JobService:
    """Every kind of background job."""

    def __init__(self, db: Database, jobs: JobQueue) -> None:
        """Wire the service."""
        self._db = db
        self._jobs = jobs

    def page(self, limit: int, cursor: str | None, *, kind: str | None, status: str | None) -> Page[JobRead]:
        """Return a page of jobs, newest first, of one kind or status if given."""
        query = select(Job)
        if kind is not None:
            query = query.where(Job.kind == kind)
        if status is not None:
            query = query.where(Job.status == status)
        with self._db.snapshot() as session:
            rows, next_cursor = fetch_page(session, query, Job.id, limit, cursor)
            return Page[JobRead](items=[job_read(row) for row in rows], next_cursor=next_cursor)

    def read(self, job_id: str) -> JobRead:
        """Return one job.

        Raises:
            NotFound: There is none with this id.
        """
        with self._db.snapshot() as session:
            job = session.get(Job, job_id)
            if job is None:
                raise NotFound("there is no job with this id")
            return job_read(job)

    def cancel(self, job_id: str) -> JobRead:
        """Cancel a job; a finished one stays as it is.

        Raises:
            NotFound: There is none with this id.
        """
        return job_read(self._jobs.cancel(job_id))


def progress_read(job: Job) -> Progress:
    """Return how much of a job is done."""
    return Progress(done=job.progress_done, total=job.progress_total, unit=job.progress_unit)


def job_read(job: Job) -> JobRead:
    """Return a job as its clients see it."""
    columns = ("id", "kind", "status", "spec", "result", "error", "attempts", "created_at", "started_at", "finished_at")
    fields: dict[str, Any] = {name: getattr(job, name) for name in columns}
    return JobRead(**fields, progress=progress_read(job))

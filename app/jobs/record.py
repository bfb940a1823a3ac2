"""The job's row and its transitions: queued -> running -> succeeded | failed | cancelled.

Every function works in the caller's transaction and bumps the row's version. A last status is never
left again. Knows nothing of the job engine; runs in every process.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from app.db.base import utc_now
from app.db.models import Job
from app.errors import AppError
from app.jobs.handler import Json

ENDED = ("succeeded", "failed", "cancelled")

OnEnd = Callable[[Session, Job], None]


def set_total(session: Session, job_id: str, total: int) -> None:
    """Say how many units of work the job has, >= 0."""
    _change(session, job_id, progress_total=total)


def advance(session: Session, job_id: str, done: int) -> None:
    """Add to the units of work done, in the transaction that records their result.

    Args:
        session: The transaction of that result.
        job_id: Whose progress it is.
        done: How many more are done, >= 0.
    """
    _change(session, job_id, progress_done=Job.progress_done + done)


def begin(session: Session, job_id: str) -> Job | None:
    """Bring a queued job to running and return its row; None if there is nothing to do any more."""
    job = _locked(session, job_id)
    if job is None or job.status in ENDED:
        return None
    if job.status == "queued":
        job.status = "running"
        job.started_at = utc_now()
        job.attempts = 1
        job.version += 1
    return job


def request_cancel(session: Session, job_id: str, on_end: OnEnd) -> Job | None:
    """Ask a job to stop: a queued one is cancelled at once, one that ended stays as it is; None if unknown."""
    job = _locked(session, job_id)
    if job is None or job.status in ENDED or job.cancel_requested:
        return job
    job.cancel_requested = True
    job.version += 1
    if job.status == "queued":
        _end(session, job, "cancelled", on_end)
    return job


def doom(session: Session, job_id: str, problem: dict[str, Json]) -> None:
    """Say why a job is going to fail; it stops like a cancelled one and then ends as failed."""
    job = _locked(session, job_id)
    if job is not None and job.status not in ENDED and job.error is None:
        job.error = problem
        job.version += 1


def must_stop(job: Job | None) -> bool:
    """Tell whether work on this job is to be left at the next cancellation point."""
    return job is None or job.status in ENDED or job.cancel_requested or job.error is not None


def finish(
    session: Session, job_id: str, on_end: OnEnd, *, completed: bool, result: dict[str, Json] | None = None
) -> None:
    """Bring a job to its last status, once: failed if it was doomed, else succeeded if completed, else cancelled."""
    job = _locked(session, job_id)
    if job is None or job.status in ENDED:
        return
    if job.error is not None:
        _end(session, job, "failed", on_end)
    elif completed:
        job.result = result
        _end(session, job, "succeeded", on_end)
    else:
        _end(session, job, "cancelled", on_end)


def problem_of(error: AppError) -> dict[str, Json]:
    """Describe an error as the `error` of a job."""
    return {
        "type": f"/problems/{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
    }


def _end(session: Session, job: Job, status: str, on_end: OnEnd) -> None:
    job.status = status
    job.finished_at = utc_now()
    job.version += 1
    on_end(session, job)


def _locked(session: Session, job_id: str) -> Job | None:
    return session.get(Job, job_id, with_for_update=True, populate_existing=True)


def _change(session: Session, job_id: str, **values: Any) -> None:
    working = update(Job).where(Job.id == job_id, Job.status.not_in(ENDED))
    session.execute(working.values(version=Job.version + 1, **values))

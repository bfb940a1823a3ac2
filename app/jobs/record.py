"""The job's row and its transitions: queued -> running -> succeeded | failed | cancelled, and paused in between.

Every function works in the caller's transaction and increases the row's version with each change. A job never leaves
its last status. Imports no job engine; runs in every process.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.access.quotas import give_back
from app.db.base import utc_now
from app.db.models import Job
from app.error_codes import problem_type
from app.errors import AppError
from app.jobs.signals import Json

ENDED = ("succeeded", "failed", "cancelled")

# The rate is computed from so many of the latest advances: a few minutes of chunks, in a column of bounded size.
PACE_LENGTH = 16

OnEnd = Callable[[Session, Job], None]


def set_total(session: Session, job_id: str, total: int) -> None:
    """Correct how many units of work the job has, >= 0; a job that has ended keeps its number."""
    working = update(Job).where(Job.id == job_id, Job.status.not_in(ENDED))
    session.execute(working.values(version=Job.version + 1, progress_total=total))


def advance(session: Session, job_id: str, done: int) -> None:
    """Add to the units of work done, in the transaction that records their result.

    Args:
        session: The transaction of that result.
        job_id: Whose progress it is.
        done: Units done since the last call, >= 0.
    """
    job = _locked(session, job_id)
    if job is None or job.status in ENDED:
        return
    job.progress_done += done
    job.pace = [*job.pace, _moment(session, job)][-PACE_LENGTH:]
    job.version += 1
    session.flush()


def enter(session: Session, job_id: str, phase: str) -> None:
    """Record what the job does from now on.

    Args:
        session: The transaction of what the phase begins with.
        job_id: Whose phase it is.
        phase: One word of up to 16 letters.
    """
    working = update(Job).where(Job.id == job_id, Job.status.not_in(ENDED), Job.progress_phase.is_distinct_from(phase))
    session.execute(working.values(version=Job.version + 1, progress_phase=phase))


def begin(session: Session, job_id: str) -> Job | None:
    """Set a queued job to running and return its row; None if the job has ended or does not exist."""
    job = _locked(session, job_id)
    if job is None or job.status in ENDED:
        return None
    if job.status == "queued":
        job.status = "running"
        job.started_at = job.started_at or utc_now()
        job.attempts = max(job.attempts, 1)
        job.pace = [_moment(session, job)]  # the time in the queue does not count
        job.version += 1
    return job


def request_cancel(session: Session, job_id: str, on_end: OnEnd) -> Job | None:
    """Request that a job stops, and return it; None if it does not exist.

    A queued or paused job is cancelled at once; one that has ended is left unchanged.
    """
    job = _locked(session, job_id)
    if job is None or job.status in ENDED or job.cancel_requested:
        return job
    job.cancel_requested = True
    job.version += 1
    if job.status in ("queued", "paused"):
        _end(session, job, "cancelled", on_end)
    return job


def request_pause(session: Session, job_id: str) -> Job | None:
    """Request that a job pauses, and return it; None if it does not exist.

    A queued job is paused at once; one that has ended is left unchanged.
    """
    job = _locked(session, job_id)
    if job is None or job.status in ENDED or must_stop(job) or job.pause_requested:
        return job
    job.pause_requested = True
    job.version += 1
    if job.status == "queued":
        job.status = "paused"
    return job


def request_resume(session: Session, job_id: str) -> Job | None:
    """Withdraw the request to pause, and return the job; a paused job is queued again. None if it does not exist."""
    job = _locked(session, job_id)
    if job is None or job.status in ENDED or not job.pause_requested:
        return job
    job.pause_requested = False
    job.wake_requested = True
    job.version += 1
    if job.status == "paused":
        job.status = "queued"
    return job


def pause(session: Session, job_id: str) -> bool:
    """Set a job to paused whose parts have all stopped; False if no pause is requested any more, or it has to end."""
    job = _locked(session, job_id)
    if job is None or job.status in ENDED:
        return True
    if must_stop(job) or not job.pause_requested:
        return False
    if job.status != "paused":
        job.status = "paused"
        job.version += 1
    return True


def mark_failing(session: Session, job_id: str, problem: dict[str, Json]) -> None:
    """Record why a job is going to fail; it stops as a cancelled one does, and then ends as failed."""
    job = _locked(session, job_id)
    if job is not None and job.status not in ENDED and job.error is None:
        job.error = problem
        job.version += 1


def must_stop(job: Job | None) -> bool:
    """Return whether work on this job has to end for good at the next cancellation point."""
    return job is None or job.status in ENDED or job.cancel_requested or job.error is not None


def should_pause(job: Job | None) -> bool:
    """Return whether work on this job has to pause at the next cancellation point."""
    return job is not None and not must_stop(job) and job.pause_requested


def finish(
    session: Session, job_id: str, on_end: OnEnd, *, completed: bool, result: dict[str, Json] | None = None
) -> None:
    """Set a job's last status, once: failed if it has an error, else succeeded if completed, else cancelled."""
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


def unmade_pixel_steps(job: Job) -> int:
    """Return the part of what was charged for a job that it has not done."""
    part_left = 1 - min(1.0, job.progress_done / max(1, job.progress_total))
    return int(job.pixel_steps * part_left)


def problem_of(error: AppError) -> dict[str, Json]:
    """Describe an error as the `error` of a job."""
    problem = {
        "type": problem_type(error.code),
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
    }
    return {**problem, "errors": [asdict(one) for one in error.errors]} if error.errors else problem


def _moment(session: Session, job: Job) -> list[Any]:
    # The database's clock, since several machines advance one job; SQLite has one machine, and its clock.
    is_shared = session.get_bind().dialect.name == "postgresql"
    now = session.scalars(select(func.clock_timestamp())).one() if is_shared else utc_now()
    return [round(now.timestamp(), 3), job.progress_done]


def _end(session: Session, job: Job, status: str, on_end: OnEnd) -> None:
    job.status = status
    job.finished_at = utc_now()
    job.version += 1
    if status != "succeeded":
        give_back(session, job.caller, job.created_at.date(), unmade_pixel_steps(job))
    on_end(session, job)


def _locked(session: Session, job_id: str) -> Job | None:
    return session.get(Job, job_id, with_for_update=True, populate_existing=True)

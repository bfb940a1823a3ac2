"""What a kind of job is to the job machinery, and how its code says that it cannot go on.

Implemented by services; knows no job engine. `run`, `run_chunk`, `tidy` and `on_end` run in the worker process,
on a thread of the job; `on_end` also in the API process, when a job is cancelled before it began.
"""

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from sqlalchemy.orm import Session

from app.db.models import Job
from app.error_codes import ErrorCode
from app.errors import AppError

if TYPE_CHECKING:
    from app.jobs.run import JobRun

Json: TypeAlias = Any  # None, bool, int, float, str, and lists and string-keyed dicts of them


class JobFailed(AppError):
    """The job could not be completed."""

    title = "Job failed"
    default_code = ErrorCode.JOB_FAILED


class JobCancelled(BaseException):
    """The job has to stop now; raised at cancellation points, not to be caught.

    Not an Exception, so that no `except Exception` around an image swallows it, and so that the step it
    leaves is not recorded as one that failed.
    """


class JobPaused(JobCancelled):
    """The job has to rest now; what it has not recorded is left as by a cancelled job, and done again."""


class WorkLost(BaseException):
    """Another worker took this one for dead and does its work: leave everything as it is; not to be caught."""


class TryLater(BaseException):
    """What the work needs is away for the moment: give it back, without counting an attempt.

    Raise it after some patience (a minute, say), not at once: the work is queued again a second later.
    """


class JobKind(Protocol):
    """What both processes know of a kind of job."""

    @property
    def kind(self) -> str:
        """The kind's name, in the job's row."""

    @property
    def queue(self) -> str:
        """`jobs`, or `generate` for what must never wait behind a dataset."""

    def on_end(self, session: Session, job: Job) -> None:
        """Follow the job into its last status, in the transaction that writes it; called exactly once."""

    def before_retry(self, session: Session, failed: Job, retry_id: str) -> None:
        """Prepare what the job works on for another job with the same spec, in the transaction that adds it.

        Raises:
            Conflict: The work cannot be done any more.
        """


class JobHandler(JobKind, Protocol):
    """The work of a kind of job.

    Any exception fails the job: an AppError becomes its `error`, anything else is logged and becomes
    `internal_error` without details.
    """

    def run(self, job: "JobRun") -> dict[str, Json] | None:
        """Do the job and return its result.

        Must be a fixed sequence of `job.step`, `job.transaction` and `job.chunks`, decided by the spec and
        by what those returned alone: after a crash it is called again, and what was recorded is replayed.
        """

    def run_chunk(self, job: "JobRun", item: Json) -> Json:
        """Do one item that `run` handed to `job.chunks`; the same rule holds. One at a time per worker."""

    def tidy(self, job: "JobRun") -> None:
        """Remove what was left unrecorded by parts of the job that failed or died.

        Called when none of it runs: before the job rests, and before it ends undone. May be called again.
        """

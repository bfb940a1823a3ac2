"""How the code of a job says that it cannot go on: the job failed, stops or pauses, or its work is requeued or lost.

Imports no job engine and no job row. Raised on the threads of the workflows in the worker process.
"""

from typing import Any, TypeAlias

from app.error_codes import ErrorCode
from app.errors import AppError

Json: TypeAlias = Any  # None, bool, int, float, str, and lists and string-keyed dicts of them


class JobFailed(AppError):
    """The job could not be completed."""

    title = "Job failed"
    default_code = ErrorCode.JOB_FAILED
    default_detail = "The job could not be completed."


class JobCancelled(BaseException):
    """The job has to stop now; raised at cancellation points, not to be caught.

    Not an Exception, so that no `except Exception` around an image swallows it, and so that the step it
    leaves is not recorded as failed.
    """


class JobPaused(JobCancelled):
    """The job has to pause now; unrecorded work is left as after a cancellation, and repeated after the resume."""


class LeaseLost(BaseException):
    """Another worker has taken this one's work over: leave every file and row as it is; not to be caught."""


class Requeue(BaseException):
    """A dependency of the work is unavailable: put the work back on its queue, without counting an attempt.

    Raise it after waiting for the dependency (a minute, for example), not at once: the work is queued again 1 s later.
    """

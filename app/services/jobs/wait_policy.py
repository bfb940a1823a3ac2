"""How long a job waits for a dependency: the engine, then its work is requeued; storage, then the job fails.

Imports no job engine. Runs in the worker process, on the threads of the jobs.
"""

import itertools
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from app.errors import StorageFull, Unavailable
from app.jobs.handler import JobContext
from app.jobs.signals import Requeue
from app.storage.layout import DataFolder

logger = logging.getLogger(__name__)

T = TypeVar("T")

# An API process that restarts is back within seconds; after a minute another node may do the work sooner.
ENGINE_WAIT_S = 60.0

# Long enough to free space or to mount a disk by hand; after that a failed job is more useful than a silent one.
STORAGE_WAIT_S = 600.0
_RETRY_S = 2.0


def wait_policy(job: JobContext) -> Callable[[], None]:
    """Return a function that a call to the engine runs before every attempt: it returns, or raises to give up.

    The function raises what `JobContext.check_cancelled` raises, and `Requeue`, which counts no attempt, after
    `ENGINE_WAIT_S` or, from the second attempt on, when the worker is stopping.
    """
    deadline = time.monotonic() + ENGINE_WAIT_S
    attempts = itertools.count()

    def check() -> None:
        job.check_cancelled()
        is_unavailable = next(attempts) > 0
        if time.monotonic() > deadline or (is_unavailable and job.is_stopping):
            raise Requeue

    return check


def store(job: JobContext, folder: DataFolder, path: str, data: bytes, *, max_wait_s: float = STORAGE_WAIT_S) -> None:
    """Write a file of a job, unless the job must stop or another worker has taken it over; wait for storage.

    Args:
        job: The job that the file belongs to.
        folder: The data folder.
        path: Relative to the data folder.
        data: The whole content; it stays in memory while waiting.
        max_wait_s: How long storage may be full or unavailable, in seconds, >= 0.

    Raises:
        JobCancelled, LeaseLost: As `JobContext.check_cancelled`.
        Requeue: The worker is stopping, and storage is full or unavailable.
        StorageFull, Unavailable: Storage has been so for `max_wait_s`.
    """
    _retrying(job, partial(folder.write, path, data), max_wait_s)


def load(job: JobContext, read: Callable[[], T], *, max_wait_s: float = STORAGE_WAIT_S) -> T:
    """Read a file, or do other work that needs storage, for a job; wait for storage, and raise as `store` does.

    Raises:
        Exception: Any other exception of `read`.
    """
    return _retrying(job, read, max_wait_s)


def _retrying(job: JobContext, act: Callable[[], T], max_wait_s: float) -> T:
    deadline = time.monotonic() + max_wait_s
    is_logged = False
    while True:
        job.check_cancelled()
        try:
            return act()
        except (StorageFull, Unavailable) as error:
            if time.monotonic() >= deadline:
                raise
            if job.is_stopping:
                raise Requeue from error
            if not is_logged:
                logger.warning("%s Job %s waits at most %.0f s for it.", error.detail, job.id, max_wait_s)
            is_logged = True
        time.sleep(_RETRY_S)

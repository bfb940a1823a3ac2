"""How long a job waits for what is away: for an engine, then it gives its work back; for storage, then it fails."""

import itertools
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from app.errors import StorageFull, Unavailable
from app.jobs.handler import TryLater
from app.jobs.run import JobRun
from app.storage.layout import DataFolder

logger = logging.getLogger(__name__)

T = TypeVar("T")

# An API process that restarts is back in seconds; beyond a minute another node may be better off.
PATIENCE_S = 60.0

# Long enough to make room or to mount a disk again by hand; then the job's end is better news than its silence.
STORAGE_PATIENCE_S = 600.0
_LOOK_AGAIN_S = 2.0


def patience(job: JobRun) -> Callable[[], None]:
    """Return what a waiting call asks before every try: go on, or stop.

    The function raises `JobCancelled` once the job is cancelled, and `TryLater`, which gives the work back without
    counting an attempt, once a minute has passed or, from the second try on, when the worker is stopping.
    """
    deadline = time.monotonic() + PATIENCE_S
    tries = itertools.count()

    def check() -> None:
        job.check_cancelled()
        is_away = next(tries) > 0
        if time.monotonic() > deadline or (is_away and job.is_stopping):
            raise TryLater

    return check


def store(job: JobRun, folder: DataFolder, path: str, data: bytes, *, patience_s: float = STORAGE_PATIENCE_S) -> None:
    """Write a file of a job's, unless the job must stop or is another worker's by now; wait for storage that is away.

    Args:
        job: Whose file it is.
        folder: Where it goes.
        path: Its relative path.
        data: Its whole content, kept while waiting.
        patience_s: How long storage may be full or away, in seconds, >= 0.

    Raises:
        JobCancelled, WorkLost: As `JobRun.check_cancelled`.
        TryLater: The worker is stopping, and the storage is away.
        StorageFull, Unavailable: The patience is over.
    """
    _patiently(job, partial(folder.write, path, data), patience_s)


def load(job: JobRun, read: Callable[[], bytes], *, patience_s: float = STORAGE_PATIENCE_S) -> bytes:
    """Read a file for a job; wait for storage that is away, and raise as `store` does.

    Raises:
        Exception: What `read` raises besides.
    """
    return _patiently(job, read, patience_s)


def _patiently(job: JobRun, act: Callable[[], T], patience_s: float) -> T:
    deadline = time.monotonic() + patience_s
    is_told = False
    while True:
        job.check_cancelled()
        try:
            return act()
        except (StorageFull, Unavailable) as error:
            if time.monotonic() >= deadline:
                raise
            if job.is_stopping:
                raise TryLater from error
            if not is_told:
                logger.warning("%s Job %s waits at most %.0f s for it.", error.detail, job.id, patience_s)
            is_told = True
        time.sleep(_LOOK_AGAIN_S)

"""How long a job waits for an engine that is away before it gives its work back."""

import itertools
import time
from collections.abc import Callable

from app.jobs.handler import TryLater
from app.jobs.run import JobRun

# An API process that restarts is back in seconds; beyond a minute another node may be better off.
PATIENCE_S = 60.0


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

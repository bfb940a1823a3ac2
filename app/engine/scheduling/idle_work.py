"""Work that waits until the device is idle: when the next piece of it is due.

Pure Python, imports no torch and starts no threads: the engine asks under its own lock, and its device thread runs the
pieces.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from app.logs.errors import WITH_TEXT

logger = logging.getLogger(__name__)

# Runs one piece of work, which a request may have to wait for; returns the seconds until the next piece, None after the
# last one.
IdlePiece = Callable[[], float | None]

# The device is idle after so many seconds without a turn: the next request of a client who draws one image after the
# other has come by then.
IDLE_S = 1.0

# A device that is never idle runs a piece all the same after so many seconds.
MAX_DELAY_S = 20.0


@dataclass(slots=True)
class _Job:
    piece: IdlePiece
    due_at: float


class IdleWork:
    """The pieces that are to be run, by when they are due."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without work; `clock` returns seconds."""
        self._clock = clock
        self._jobs: list[_Job] = []
        self._busy_at = clock()

    def add(self, piece: IdlePiece) -> None:
        """Add work that is due now."""
        self._jobs.append(_Job(piece, self._clock()))

    def take(self, *, is_idle: bool) -> Callable[[], None] | None:
        """Return the piece that is to be run now, if there is one.

        Args:
            is_idle: Whether no request has a turn now.
        """
        now = self._clock()
        if not is_idle:
            self._busy_at = now
        for job in self._jobs:
            if now >= (max(job.due_at, self._busy_at + IDLE_S) if is_idle else job.due_at + MAX_DELAY_S):
                return partial(self._run, job)
        return None

    def wait_s(self) -> float | None:
        """Return the seconds until a piece is due on an idle device, >= 0; None without work."""
        due_at = min((job.due_at for job in self._jobs), default=None)
        return None if due_at is None else max(0.0, max(due_at, self._busy_at + IDLE_S) - self._clock())

    def _run(self, job: _Job) -> None:
        try:
            pause_s = job.piece()
        except BaseException:  # no work aside may end the device thread
            logger.exception("Work that waits for an idle device failed and is given up.", extra=WITH_TEXT)
            pause_s = None
        if pause_s is None:
            self._jobs.remove(job)
        else:
            job.due_at = self._clock() + pause_s

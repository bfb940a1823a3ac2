"""One request to the engine and how its future is resolved.

Knows nothing of torch or of any model: `payload` and `state` belong to the runner. Made on the caller's thread,
afterwards touched by the device thread alone; the caller keeps the future.
"""

import enum
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any


class Priority(enum.IntEnum):
    """Who goes first; the lower value does, at every step."""

    INTERACTIVE = 0  #: somebody waits for the answer
    BACKGROUND = 1  #: datasets and training


@dataclass(slots=True, eq=False)
class EngineRequest:
    """What one caller wants from one model, and the state of it.

    The future stays pending while the request runs, so that `future.cancel()` works until the result is there; a
    cancelled request leaves at the next step boundary.

    Attributes:
        submitted_at: Monotonic seconds.
        started_at: Monotonic seconds of the admission; None while it waits.
        state: The runner's own, from `prepare` on.
        settled: The future was given its outcome; nothing more happens to this request.
    """

    model: str
    payload: object
    priority: Priority = Priority.INTERACTIVE

    future: "Future[Any]" = field(default_factory=Future)
    submitted_at: float = field(default_factory=time.monotonic)
    started_at: float | None = None
    state: Any = None
    settled: bool = False

    @property
    def is_cancelled(self) -> bool:
        """Whether the caller no longer wants the answer."""
        return self.future.cancelled()

    def resolve(self, result: object) -> None:
        """Give the caller the result, once."""
        if self._settle():
            self.future.set_result(result)

    def fail(self, error: BaseException) -> None:
        """Give the caller the error, once."""
        if self._settle():
            self.future.set_exception(error)

    def abandon(self) -> None:
        """Let go of a cancelled request; wakes those who wait for its future with `concurrent.futures.wait`."""
        self._settle()

    def _settle(self) -> bool:
        """Take the right to set the future's outcome; False when it was taken before or the caller cancelled."""
        if self.settled:
            return False
        self.settled = True
        self.state = None
        return self.future.set_running_or_notify_cancel()

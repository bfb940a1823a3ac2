"""One request to the engine and how its future is resolved.

Knows nothing of torch or of any model: `payload` and `state` belong to the runner. Made on the caller's thread,
afterwards changed by the device thread alone; the caller keeps the future.
"""

import enum
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from app.engine.scheduling.row_budget import Shape


class Priority(enum.IntEnum):
    """Who goes first; the lower value does, at every step."""

    INTERACTIVE = 0  #: somebody waits for the answer
    BACKGROUND = 1  #: datasets and training


@dataclass(frozen=True, slots=True)
class Demand:
    """What a request asks of the device, known before it runs.

    Attributes:
        shape: Sides of what one row works on (for diffusion the latent's h, w), each >= 1. Requests of one shape
            can share a forward; empty where all requests can.
        rows: Rows of each step's forward, >= 1: two for a guided image.
        steps: Steps it takes in all, >= 1; for progress and the expected wait, the runner has the last word.
        finishes_apart: Whether `Runner.finish` is work for the device (for diffusion, decoding), so that it gets a turn
            between two steps; else it comes with the last step.
    """

    shape: Shape = ()
    rows: int = 1
    steps: int = 1
    finishes_apart: bool = False

    def __post_init__(self) -> None:
        """Refuse what nothing can be computed from, on the caller's thread rather than on the device's."""
        if min(self.rows, self.steps, *self.shape) < 1:
            raise ValueError(f"{self} must be of numbers >= 1")


@dataclass(slots=True, eq=False)
class EngineRequest:
    """What one caller wants from one model, and the state of it.

    The future stays pending while the request runs, so that `future.cancel()` works until the result is there; a
    cancelled request leaves at the next step boundary.

    Attributes:
        on_step: Called by the device thread after each step with the steps done and those demanded; must not block.
        steps_done: Steps taken, counted by the engine.
        submitted_at: Monotonic seconds.
        started_at: Monotonic seconds of the admission; None while it waits.
        stepped_at: Monotonic seconds of the end of its last step; None before.
        state: The runner's own, from `prepare` on.
        settled: The future was given its outcome; nothing more happens to this request.
    """

    model: str
    payload: object
    priority: Priority = Priority.INTERACTIVE
    demand: Demand = field(default_factory=Demand)
    on_step: Callable[[int, int], None] | None = None

    steps_done: int = 0
    future: "Future[Any]" = field(default_factory=Future)
    submitted_at: float = field(default_factory=time.monotonic)
    started_at: float | None = None
    stepped_at: float | None = None
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

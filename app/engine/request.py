"""One request to the engine: what it costs, its priority, and its future.

Imports nothing of the application: `payload` and `state` belong to the model's runner. The caller's thread creates a
request; afterwards the device thread alone changes it, and the caller keeps the future.
"""

import enum
import logging
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple

logger = logging.getLogger(__name__)

# Sides of what one row works on, for diffusion the latent's h and w; empty where all requests can share a forward.
Shape = tuple[int, ...]


class Kind(NamedTuple):
    """What requests that share a forward have in common; fields as in `RequestCost`."""

    shape: Shape
    weights: Hashable = None
    network: str = ""


# Smallest number of rows that a step or a forward is limited to: one guided request needs two.
MIN_ROWS = 2


class Priority(enum.IntEnum):
    """The order of service at every step: the lower value goes first."""

    INTERACTIVE = 0  #: a client waits for the answer
    BACKGROUND = 1  #: datasets and training


@dataclass(frozen=True, slots=True)
class RequestCost:
    """The device work of a request, as far as it is known before the request runs.

    Attributes:
        shape: Sides of what one row works on, each >= 1. Requests of one shape can share a forward.
        rows: Rows of a step's forward, >= 1: two for a guided image. The most, where steps differ.
        steps: Number of steps, >= 1. Used for progress and the expected wait; `Runner.is_finished` decides.
        finishes_separately: Whether `Runner.finish` is device work of its own (for diffusion, decoding), scheduled
            between two steps; otherwise it is called right after the last step.
        step_rows: Rows of each step, 1 ... `rows`; None: `rows` of each.
        weights: Which weights the model has for it; requests of other ones cannot share a forward. Any hashable value.
        network: Which network of the model runs it, where there are several: steps of one network have one cost,
            whatever the weights. The empty name is the model's own.
    """

    shape: Shape = ()
    rows: int = 1
    steps: int = 1
    finishes_separately: bool = False
    step_rows: tuple[int, ...] | None = None
    weights: Hashable = None
    network: str = ""

    @property
    def kind(self) -> Kind:
        """What requests that share a forward have in common."""
        return Kind(self.shape, self.weights, self.network)

    def __post_init__(self) -> None:
        """Raise ValueError for impossible numbers, on the caller's thread rather than on the device thread."""
        if min(self.rows, self.steps, *self.shape, *(self.step_rows or ())) < 1:
            raise ValueError(f"All numbers of {self} must be >= 1.")
        if self.step_rows is not None and (len(self.step_rows), max(self.step_rows)) != (self.steps, self.rows):
            raise ValueError(f"The rows of the steps of {self} do not fit the others.")

    def rows_left(self, steps_done: int) -> int:
        """Return the rows of all steps behind the first `steps_done`, >= 0."""
        if self.step_rows is None:
            return max(0, self.steps - steps_done) * self.rows
        return sum(self.step_rows[steps_done:])


@dataclass(slots=True, eq=False)
class EngineRequest:
    """One call of one model, and its progress.

    The future stays pending while the request runs, so that `future.cancel()` works until the result is there; a
    cancelled request leaves at the next step boundary.

    Attributes:
        cost: Rows, steps and shape.
        on_step: Called by the device thread after each step with the steps done and `cost.steps`; must not block.
        caller: Whose request it is: callers share the device evenly. Any text; it has no other meaning.
        steps_done: Steps taken, counted by the engine.
        submitted_at: Monotonic seconds.
        started_at: Monotonic seconds of the admission; None while the request waits.
        stepped_at: Monotonic seconds of the end of its last step; None before.
        state: Written and read by the runner alone, from `prepare` on.
        resolved: Whether the future has its outcome; nothing more happens to the request then.
    """

    model: str
    payload: object
    priority: Priority = Priority.INTERACTIVE
    cost: RequestCost = field(default_factory=RequestCost)
    on_step: Callable[[int, int], None] | None = None
    caller: str = ""

    steps_done: int = 0
    future: "Future[Any]" = field(default_factory=Future)
    submitted_at: float = field(default_factory=time.monotonic)
    started_at: float | None = None
    stepped_at: float | None = None
    state: Any = None
    resolved: bool = False

    @property
    def rows(self) -> int:
        """Rows of its next step; after the last one, those of the last."""
        step_rows = self.cost.step_rows
        return self.cost.rows if step_rows is None else step_rows[min(self.steps_done, len(step_rows) - 1)]

    @property
    def is_cancelled(self) -> bool:
        """Whether the caller cancelled the future."""
        return self.future.cancelled()

    def count_step(self) -> None:
        """Count a step that was taken, and call `on_step`."""
        self.steps_done += 1
        if self.on_step is None:
            return
        try:
            self.on_step(self.steps_done, self.cost.steps)
        except BaseException:  # an error of the callback must not fail the request
            logger.exception("The on_step callback of a request of model %s failed and is dropped.", self.model)
            self.on_step = None

    def resolve(self, result: object) -> None:
        """Set the future's result, unless the request is resolved or cancelled."""
        if self._mark_resolved():
            self.future.set_result(result)

    def fail(self, error: BaseException) -> None:
        """Set the future's exception, unless the request is resolved or cancelled."""
        if self._mark_resolved():
            self.future.set_exception(error)

    def abandon(self) -> None:
        """Drop a cancelled request; wakes threads that wait for its future with `concurrent.futures.wait`."""
        self._mark_resolved()

    def _mark_resolved(self) -> bool:
        """Free the state; return whether the future may still get an outcome."""
        if self.resolved:
            return False
        self.resolved = True
        self.state = None
        return self.future.set_running_or_notify_cancel()

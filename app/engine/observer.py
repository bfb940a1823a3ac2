"""What an engine reports of its work to observers: counts for metrics, spans for traces.

Imports no model and no library of metrics. Observers are called on the thread that does the work, mostly the device
thread, and outside of the engine's lock; they must return at once. One that raises is removed.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from app.engine.request import EngineRequest, Priority

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StepTaken:
    """A step that a model took.

    Attributes:
        model: Its name in the engine.
        rows: Rows of requests, >= 1.
        padding: Rows that only padded the forwards, >= 0.
        seconds: Duration of the step, without the preparation of new requests. On a GPU the last step may still run;
            the step after it waits for it.
    """

    model: str
    rows: int
    padding: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """The requests of one model and priority that are not admitted yet.

    Attributes:
        number: >= 1.
        oldest_s: Seconds since the first of them was submitted.
    """

    model: str
    priority: Priority
    number: int
    oldest_s: float


class EngineObserver(Protocol):
    """Watches an engine."""

    def submitted(self, request: EngineRequest) -> None:
        """A request was queued; called on the thread of `Engine.submit`, in its context."""

    def admitted(self, request: EngineRequest) -> None:
        """A request is about to be prepared for its first step."""

    def stepped(self, step: StepTaken) -> None:
        """A step was taken; one that failed is not reported."""

    def finished(self, request: EngineRequest, seconds: float) -> None:
        """A request was finished in a turn of its own (for diffusion: decoded), which took this long."""


class Observers:
    """The observers of an engine; reports to none cost nothing."""

    def __init__(self) -> None:
        """Start without observers."""
        self._observers: tuple[EngineObserver, ...] = ()

    def add(self, observer: EngineObserver) -> None:
        """Add an observer, at any time."""
        self._observers = (*self._observers, observer)

    def report(self, call: Callable[[EngineObserver], None]) -> None:
        """Report something to each observer."""
        for observer in self._observers:
            try:
                call(observer)
            except Exception:  # counting must not end the device thread
                logger.exception("An observer of the engine failed and is removed.")
                self._observers = tuple(other for other in self._observers if other is not observer)

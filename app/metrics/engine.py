"""Counts what an engine does; an observer of it (`app/engine/observer.py`), without importing it.

Called on the engine's device thread: some additions under a lock each, about 5 µs a step.
"""

import time
from functools import lru_cache
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram

from app.metrics import series
from app.metrics.series import counter, histogram, model_family, rows_bound


class _Priority(Protocol):
    @property
    def name(self) -> str: ...


class EngineRequest(Protocol):
    """A request of an engine, as far as it is counted."""

    @property
    def model(self) -> str:
        """The model's name in the engine."""

    @property
    def priority(self) -> _Priority:
        """The order of service."""

    @property
    def submitted_at(self) -> float:
        """Monotonic seconds."""

    @property
    def started_at(self) -> float | None:
        """Monotonic seconds; None while the request waits."""


class StepTaken(Protocol):
    """A step, as an engine reports it."""

    @property
    def model(self) -> str:
        """The model's name in the engine."""

    @property
    def rows(self) -> int:
        """Rows of requests."""

    @property
    def padding(self) -> int:
        """Rows that padded the forwards."""

    @property
    def seconds(self) -> float:
        """Duration."""


class EngineMetrics:
    """The counters of one engine."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Add the series to a registry."""
        self._rows = counter(registry, series.ROWS)
        self._step_seconds = histogram(registry, series.STEP_SECONDS)
        self._decode_seconds = histogram(registry, series.DECODE_SECONDS)
        self._admitted = counter(registry, series.ADMITTED)
        self._wait_seconds = histogram(registry, series.WAIT_SECONDS)
        # Looking up a child by its labels costs as much as counting. Labels are few, so the caches are.
        self._of_step = lru_cache(maxsize=256)(self._find_of_step)
        self._of_admission = lru_cache(maxsize=256)(self._find_of_admission)

    def submitted(self, request: EngineRequest) -> None:
        """Count nothing yet."""

    def admitted(self, request: EngineRequest) -> None:
        """Count a request that begins, and the time that it waited."""
        admitted, wait_seconds = self._of_admission(request.model, request.priority.name.lower())
        admitted.inc()
        wait_seconds.observe((request.started_at or time.monotonic()) - request.submitted_at)

    def stepped(self, step: StepTaken) -> None:
        """Count a step's rows and its duration."""
        used, padding, seconds = self._of_step(step.model, rows_bound(step.rows))
        used.inc(step.rows)
        padding.inc(step.padding)
        seconds.observe(step.seconds)

    def finished(self, request: EngineRequest, seconds: float) -> None:
        """Count a decoding."""
        self._decode_seconds.labels(model_family(request.model)).observe(seconds)

    def _find_of_step(self, model: str, rows: str) -> tuple[Counter, Counter, Histogram]:
        family = model_family(model)
        rows_of = self._rows.labels
        return rows_of(family, "used"), rows_of(family, "padding"), self._step_seconds.labels(family, rows)

    def _find_of_admission(self, model: str, priority: str) -> tuple[Counter, Histogram]:
        return self._admitted.labels(model_family(model), priority), self._wait_seconds.labels(priority)

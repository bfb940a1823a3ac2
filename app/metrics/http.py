"""Counts requests and their answers; the middleware calls it, on the event loop.

Imports no HTTP framework. Labels come from the code alone: templates of routes, known methods, codes of problems.
"""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from app.error_codes import ErrorCode
from app.metrics import series
from app.metrics.series import counter, gauge, histogram

# A code that is not in the enum; it would be a mistake of the code, and must not be a label all the same.
OTHER_CODE = "other"

_CODES = frozenset(code.value for code in ErrorCode)


@dataclass(frozen=True, slots=True)
class Answered:
    """A request that has ended.

    Attributes:
        method: A method of HTTP, or `OTHER`.
        route: The template of its route, or `none`.
        status: Of the answer; 499: the client left before it began.
        seconds: Duration.
        received: Bytes of its body that arrived.
        sent: Bytes of the answer's body.
        code: Of the problem that was answered; empty for none.
    """

    method: str
    route: str
    status: int
    seconds: float = 0.0
    received: int = 0
    sent: int = 0
    code: str = ""


class HttpMetrics:
    """The counters of one application."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Add the series to a registry."""
        self._requests = counter(registry, series.HTTP_REQUESTS)
        self._seconds = histogram(registry, series.HTTP_SECONDS)
        self._in_flight = gauge(registry, series.HTTP_IN_FLIGHT)
        self._received = counter(registry, series.HTTP_RECEIVED)
        self._sent = counter(registry, series.HTTP_SENT)
        self._problems = counter(registry, series.PROBLEMS)
        self._images = counter(registry, series.IMAGES)

    def begin(self) -> None:
        """Count a request whose head has arrived; `end` follows."""
        self._in_flight.inc()

    def end(self, answered: Answered) -> None:
        """Count a request that has ended."""
        self._in_flight.dec()
        self._seconds.labels(answered.method, answered.route).observe(answered.seconds)
        self._received.labels(answered.route).inc(answered.received)
        self._sent.labels(answered.route).inc(answered.sent)
        self.refuse(answered)

    def refuse(self, answered: Answered) -> None:
        """Count an answer, such as that to a head that could not be read; `begin` was not called for it."""
        self._requests.labels(answered.method, answered.route, answered.status).inc()
        if answered.code:
            code = answered.code if answered.code in _CODES else OTHER_CODE
            self._problems.labels(code, answered.status).inc()

    def add_images(self, number: int) -> None:
        """Count the images of an answer."""
        self._images.inc(number)

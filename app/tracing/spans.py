"""Spans as the application makes them, and the tracing that makes none.

Imports no OpenTelemetry. Any thread and any task may use a tracing.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Literal, Protocol

Attribute = str | int | float | bool

# The attribute of every span with the id of the request that it belongs to, and of those of jobs with the job's.
REQUEST_ID: Final = "foxhound.request_id"
JOB_ID: Final = "foxhound.job_id"

# The header by which a trace goes on in another process (W3C Trace Context).
TRACE_HEADER: Final = "traceparent"


class Span(Protocol):
    """A span that has begun."""

    def rename(self, name: str) -> None:
        """Set the name, once it is known."""

    def set(self, name: str, value: Attribute) -> None:
        """Set an attribute."""

    def fail(self, kind: str) -> None:
        """Mark the span as failed, with the kind of the error."""


class Tracing(Protocol):
    """Makes spans."""

    def span(
        self,
        name: str,
        attributes: Mapping[str, Attribute],
        *,
        kind: Literal["internal", "server"] = "internal",
        parent: str = "",
    ) -> AbstractContextManager[Span]:
        """Make a span for the length of the block; an exception that leaves it marks it as failed, without its text.

        Args:
            name: Names a route or a kind.
            attributes: Known at the start.
            kind: `server` for a request that came from another process.
            parent: The `traceparent` that came with it; default: the present span.
        """

    def headers(self) -> dict[str, str]:
        """Return the headers that let another process go on with the present trace."""

    def note(self, name: str, value: Attribute) -> None:
        """Set an attribute of the present span."""

    def close(self) -> None:
        """Send what is not sent yet."""

    # An observer of an engine, `app.engine.observer.EngineObserver`.

    def submitted(self, request: Any) -> None:
        """Trace a request that was queued."""

    def admitted(self, request: Any) -> None:
        """Do nothing."""

    def stepped(self, step: Any) -> None:
        """Do nothing."""

    def finished(self, request: Any, seconds: float) -> None:
        """Do nothing."""


class _NoSpan:
    """The span of `NoTracing`."""

    def rename(self, name: str) -> None:
        """Do nothing."""

    def set(self, name: str, value: Attribute) -> None:
        """Do nothing."""

    def fail(self, kind: str) -> None:
        """Do nothing."""


class NoTracing:
    """Makes no spans."""

    def span(
        self,
        name: str,
        attributes: Mapping[str, Attribute],
        *,
        kind: Literal["internal", "server"] = "internal",
        parent: str = "",
    ) -> AbstractContextManager[Span]:
        """Make none."""
        return _NO_SPAN

    def headers(self) -> dict[str, str]:
        """Return none."""
        return {}

    def note(self, name: str, value: Attribute) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def submitted(self, request: Any) -> None:
        """Do nothing."""

    def admitted(self, request: Any) -> None:
        """Do nothing."""

    def stepped(self, step: Any) -> None:
        """Do nothing."""

    def finished(self, request: Any, seconds: float) -> None:
        """Do nothing."""


_NO_SPAN: Final[AbstractContextManager[Span]] = nullcontext(_NoSpan())
NO_TRACING: Final = NoTracing()

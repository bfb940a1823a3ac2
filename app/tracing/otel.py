"""Tracing by OpenTelemetry; imported only where it is wanted, since its SDK is an extra.

The provider is our own and never the global one: with that, FastAPI and DBOS would make spans of theirs, which record
paths and the texts of exceptions. Where spans go, and how many, is set by the standard `OTEL_*` variables. Spans are
sent by a thread of the SDK.
"""

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, Protocol

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.logs.context import job_id, request_id
from app.tracing.spans import JOB_ID, REQUEST_ID, TRACE_HEADER, Attribute, Span

_KINDS = {"internal": SpanKind.INTERNAL, "server": SpanKind.SERVER}
_TRACE_CONTEXT = TraceContextTextMapPropagator()


class EngineRequest(Protocol):
    """A request of an engine, as far as it is traced; times are monotonic seconds."""

    @property
    def model(self) -> str:
        """The model's name in the engine."""

    @property
    def future(self) -> "Future[Any]":
        """Its result."""

    @property
    def submitted_at(self) -> float:
        """When it was queued."""

    @property
    def started_at(self) -> float | None:
        """When it was admitted."""

    @property
    def stepped_at(self) -> float | None:
        """When its last step ended."""

    @property
    def steps_done(self) -> int:
        """Steps taken."""


class _OtelSpan:
    """A span of OpenTelemetry as `app.tracing.spans.Span`."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def rename(self, name: str) -> None:
        """Set the name."""
        self._span.update_name(name)

    def set(self, name: str, value: Attribute) -> None:
        """Set an attribute."""
        self._span.set_attribute(name, value)

    def fail(self, kind: str) -> None:
        """Mark the span as failed."""
        self._span.set_attribute("error.type", kind)
        self._span.set_status(Status(StatusCode.ERROR))


class OtelTracing:
    """Makes spans of a provider."""

    def __init__(self, provider: TracerProvider) -> None:
        """Use a provider, which `close` shuts down."""
        self._provider = provider
        self._tracer = provider.get_tracer("foxhound")

    @contextmanager
    def span(
        self,
        name: str,
        attributes: Mapping[str, Attribute],
        *,
        kind: Literal["internal", "server"] = "internal",
        parent: str = "",
    ) -> Iterator[Span]:
        """Make a span; see `app.tracing.spans.Tracing`."""
        # Of a client's trace the `traceparent` alone: `tracestate` is free text.
        context = _TRACE_CONTEXT.extract({TRACE_HEADER: parent}) if parent else None
        with self._tracer.start_as_current_span(
            name,
            context,
            _KINDS[kind],
            {**_ids(), **attributes},
            record_exception=False,
            set_status_on_exception=False,
        ) as begun:
            span = _OtelSpan(begun)
            try:
                yield span
            except BaseException as error:
                span.fail(type(error).__name__)
                raise

    def headers(self) -> dict[str, str]:
        """Return `traceparent`, if there is a present span."""
        carrier: dict[str, str] = {}
        _TRACE_CONTEXT.inject(carrier)
        return {name: value for name, value in carrier.items() if name == TRACE_HEADER}

    def note(self, name: str, value: Attribute) -> None:
        """Set an attribute of the present span."""
        trace.get_current_span().set_attribute(name, value)

    def close(self) -> None:
        """Send the remaining spans, and end the thread."""
        self._provider.shutdown()

    # An observer of an engine.

    def submitted(self, request: EngineRequest) -> None:
        """Make the spans of a request once its future has an outcome, as children of the span that submits it."""
        ended = partial(self._end, request, contexts.get_current(), _ids())
        request.future.add_done_callback(ended)

    def admitted(self, request: EngineRequest) -> None:
        """Do nothing: the spans are made at the end."""

    def stepped(self, step: object) -> None:
        """Do nothing: a step serves several requests."""

    def finished(self, request: EngineRequest, seconds: float) -> None:
        """Do nothing: the spans are made at the end."""

    def _end(
        self, request: EngineRequest, context: contexts.Context, ids: dict[str, Attribute], future: "Future[Any]"
    ) -> None:
        now = time.monotonic()
        began, started, stepped = request.submitted_at, request.started_at, request.stepped_at
        epoch_ns = time.time_ns() - round(now * 1e9)

        def make(name: str, start: float, end: float, parent: contexts.Context, **more: Attribute) -> trace.Span:
            attributes: dict[str, Attribute] = {**ids, "foxhound.model": request.model.partition(":")[0], **more}
            span = self._tracer.start_span(
                name, parent, start_time=epoch_ns + round(start * 1e9), attributes=attributes
            )
            if name == "engine" and (kind := _failure(future)):
                _OtelSpan(span).fail(kind)
            span.end(epoch_ns + round(end * 1e9))
            return span

        whole = make("engine", began, now, context, **{"foxhound.steps": request.steps_done})
        inner = trace.set_span_in_context(whole, context)
        make("queued", began, started or now, inner)
        if started is not None:
            make("steps", started, stepped or now, inner)
        if stepped is not None:
            make("decode", stepped, now, inner)


def otel_tracing(service_version: str) -> OtelTracing:
    """Return a tracing that sends spans by OTLP over HTTP, to `OTEL_EXPORTER_OTLP_ENDPOINT` (default: this machine)."""
    named = Resource.create()
    if str(named.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        named = named.merge(Resource({SERVICE_NAME: "foxhound"}))
    provider = TracerProvider(resource=named.merge(Resource({SERVICE_VERSION: service_version})))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return OtelTracing(provider)


def _ids() -> dict[str, Attribute]:
    ids = {REQUEST_ID: request_id(), JOB_ID: job_id()}
    return {name: value for name, value in ids.items() if value}


def _failure(future: "Future[Any]") -> str:
    if future.cancelled():
        return "cancelled"
    error = future.exception()
    return type(error).__name__ if error is not None else ""

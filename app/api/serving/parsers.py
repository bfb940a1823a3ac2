"""uvicorn's two HTTP protocol classes, h11 and httptools, combined with `BoundedConnection`.

Each reports to `BoundedConnection` when a head is complete and when the parser has produced an event. httptools is used
if it is installed, as in uvicorn, else h11. Imports no application. Runs on the event loop.
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.api.serving.connections import MAX_HEAD_BYTES, MAX_PIPELINED, BoundedConnection

try:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
except ImportError:  # httptools is not installed
    HttpToolsProtocol = None  # type: ignore[assignment,misc]


class H11Connection(BoundedConnection, H11Protocol):
    """A bounded connection that h11 parses."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Replace uvicorn's parser by one that reports its events."""
        super().__init__(*args, **kwargs)
        self.conn = _ReportingConnection(self._on_event)

    def send_400_response(self, msg: str) -> None:
        """Answer with the status of the parser's error; called while that error is handled."""
        hint = getattr(sys.exception(), "error_status_hint", 400)
        self.refuse(hint if hint in (431, 501) else 400)

    def _on_event(self, event: object) -> None:
        if isinstance(event, h11.Request):
            self.note_head()
        elif event is not h11.NEED_DATA:  # with PAUSED the next request waits unparsed, and uvicorn stops reading
            self.note_progress()


class _ReportingConnection(h11.Connection):
    def __init__(self, on_event: Callable[[object], None]) -> None:
        super().__init__(h11.SERVER, MAX_HEAD_BYTES)
        self._on_event = on_event

    def next_event(self) -> Any:
        event = super().next_event()
        self._on_event(event)
        return event


if HttpToolsProtocol is not None:

    class HttpToolsConnection(BoundedConnection, HttpToolsProtocol):
        """A bounded connection that httptools parses; the parser calls the `on_…` methods."""

        _answering: Any = None

        def connection_lost(self, exc: Exception | None) -> None:
            """Report the disconnect to the running request too; uvicorn reports it to the one read last."""
            super().connection_lost(exc)
            if self._answering is not None and not self._answering.response_complete:
                self._answering.disconnected = True
                self._answering.message_event.set()

        def _start_asgi_task(self, cycle: Any, app: Any) -> None:
            self._answering = cycle
            super()._start_asgi_task(cycle, app)

        def on_message_begin(self) -> None:
            """Refuse a pipelined request above the limit, by an error that the parser passes on."""
            if len(self.pipeline) >= MAX_PIPELINED:
                raise ValueError("too many requests are pipelined")
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            """Record the head, then start the request."""
            self.note_head()
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            """Record the piece, then pass it on."""
            self.note_progress()
            super().on_body(body)

        def on_message_complete(self) -> None:
            """Record the end, then pass it on."""
            self.note_progress()
            super().on_message_complete()


def connection_class(parser: str = "auto") -> type[asyncio.Protocol]:
    """Return the protocol class for a parser: `httptools`, `h11`, or `auto` for the faster one that is installed.

    Raises:
        ValueError: The parser is unknown or not installed.
    """
    if parser == "h11" or (parser == "auto" and HttpToolsProtocol is None):
        return H11Connection
    if parser in ("auto", "httptools") and HttpToolsProtocol is not None:
        return HttpToolsConnection
    raise ValueError(f"The HTTP parser {parser} is unknown or not installed.")

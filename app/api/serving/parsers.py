"""The two HTTP parsers that uvicorn may run, each in a connection that is bounded.

Both are told to `BoundedConnection` in the same words: a head is complete, something was given. httptools is taken
where it is installed, as uvicorn would, else h11. Runs on the event loop.
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
        """Put our parser, which tells what it gives, in the place of uvicorn's."""
        super().__init__(*args, **kwargs)
        self.conn = _ToldConnection(self._on_event)

    def send_400_response(self, msg: str) -> None:
        """Answer as the parser's error says; called while it is handled."""
        hint = getattr(sys.exception(), "error_status_hint", 400)
        self.refuse(hint if hint in (431, 501) else 400)

    def _on_event(self, event: object) -> None:
        if isinstance(event, h11.Request):
            self.note_head()
        elif event is not h11.NEED_DATA:  # with PAUSED the next request waits unparsed, and uvicorn stops reading
            self.note_progress()


class _ToldConnection(h11.Connection):
    def __init__(self, tell: Callable[[object], None]) -> None:
        super().__init__(h11.SERVER, MAX_HEAD_BYTES)
        self._tell = tell

    def next_event(self) -> Any:
        event = super().next_event()
        self._tell(event)
        return event


if HttpToolsProtocol is not None:

    class HttpToolsConnection(BoundedConnection, HttpToolsProtocol):
        """A bounded connection that httptools parses; calls its methods `on_…`."""

        _answering: Any = None

        def connection_lost(self, exc: Exception | None) -> None:
            """Tell the request that is being answered too; uvicorn tells the one that was read last."""
            super().connection_lost(exc)
            if self._answering is not None and not self._answering.response_complete:
                self._answering.disconnected = True
                self._answering.message_event.set()

        def _start_asgi_task(self, cycle: Any, app: Any) -> None:
            self._answering = cycle
            super()._start_asgi_task(cycle, app)

        def on_message_begin(self) -> None:
            """Refuse, by an error that the parser hands on, a request too many ahead of its turn."""
            if len(self.pipeline) >= MAX_PIPELINED:
                raise ValueError("too many requests are pipelined")
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            """Note the head, then start the request."""
            self.note_head()
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            """Note the piece, then hand it on."""
            self.note_progress()
            super().on_body(body)

        def on_message_complete(self) -> None:
            """Note the end, then hand it on."""
            self.note_progress()
            super().on_message_complete()


def connection_class(parser: str = "auto") -> type[asyncio.Protocol]:
    """Return the protocol class for a parser: `httptools`, `h11`, or `auto` for the faster one that is installed.

    Raises:
        ValueError: There is no such parser here.
    """
    if parser == "h11" or (parser == "auto" and HttpToolsProtocol is None):
        return H11Connection
    if parser in ("auto", "httptools") and HttpToolsProtocol is not None:
        return HttpToolsConnection
    raise ValueError(f"There is no HTTP parser {parser}.")

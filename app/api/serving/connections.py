"""Limits what one client may use before a request is complete: connections, bytes of request heads, and time.

`BoundedConnection` is mixed into uvicorn's protocol classes (see `parsers`) and uses the `ConnectionBook` of its
server. Imports no application. Runs on the event loop.
"""

import asyncio
import ipaddress
import logging
import socket
import uuid
from http import HTTPStatus
from typing import Any

from app.api.problems import PROBLEM_MEDIA_TYPE, problem_body
from app.api.serving.browsers import SAFE_HEADERS
from app.api.serving.connection_book import ConnectionBook
from app.api.serving.observed import NO_ROUTE, OTHER_METHOD
from app.logs.context import handling
from app.metrics.http import Answered

log = logging.getLogger("foxhound.access")

MAX_HEAD_BYTES = 65_536
# Maximum number of pipelined requests of a connection.
MAX_PIPELINED = 16
# After a response that ends the connection, bytes that the client still sends are read and dropped for this long. A
# socket that is closed with unread bytes resets the connection, and the client may lose the response.
_LINGER_S = 1.0
_LINGER_BYTES = 1_000_000

_REFUSALS = {
    400: ("malformed_request", "The request is not valid HTTP/1.1."),
    408: ("head_too_slow", "The head of the request did not arrive in time. Send it without pauses."),
    431: ("head_too_large", f"Request line and headers may have at most {MAX_HEAD_BYTES} bytes together. Send fewer."),
    501: ("not_implemented", "This transfer encoding is not supported. Send the body chunked, or with Content-Length."),
    503: ("too_many_connections", "Too many connections are open. Close some, or try again later."),
}


class BoundedConnection(asyncio.Protocol):
    """A connection that limits request heads in bytes and time; a mixin for uvicorn's protocol classes.

    It counts the bytes since the parser last produced an event (a head, a piece of a body, the end of a message). This
    limits everything that a parser buffers: request lines, headers, chunk extensions, trailers.
    """

    # Attributes of uvicorn's protocol classes.
    config: Any
    cycle: Any
    loop: Any
    transport: Any
    # Pipelined requests; h11 has none.
    pipeline: Any = ()

    _num_unparsed = 0
    _is_refused = False
    _timer: asyncio.TimerHandle | None = None

    @property
    def _book(self) -> ConnectionBook:
        book: ConnectionBook = self.config.book
        return book

    @property
    def _is_busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept the connection, or refuse it before anything is read."""
        super().connection_made(transport)
        limits = self._book.limits
        sock = transport.get_extra_info("socket")
        _drop_silent_readers(sock, limits.read_timeout_s)
        address = _address_of(sock)
        if not self._book.admit(self, address):
            self._write_problem(503)
            self.transport.close()
            return
        if pause_s := self._book.pause_s(address):
            # Not at once: uvloop begins to read after this call, whatever the call does.
            self.loop.call_soon(self.transport.pause_reading)
            self._timer = self.loop.call_later(pause_s, self._begin_reading)
            return
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the connection."""
        self._book.leave(self)
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass the data to the parser in pieces that do not exceed the buffer limit."""
        if self._is_refused:
            self._drop(data)
            return
        if not self._is_busy and self._timer is None:
            self._arm()
        while data and not self._is_refused and not self.transport.is_closing():
            room = MAX_HEAD_BYTES - self._num_unparsed
            piece, data = data[:room], data[room:]
            self._num_unparsed += len(piece)
            super().data_received(piece)
            if self._num_unparsed >= MAX_HEAD_BYTES:
                self.refuse(431)

    def on_response_complete(self) -> None:
        """Mark the connection idle, unless it has a pipelined request."""
        super().on_response_complete()  # type: ignore[misc]
        if not self._is_busy:
            self._book.begin_waiting(self)

    def shutdown(self) -> None:
        """Close the connection after the running response, or at once if there is none."""
        if self._is_refused and not self._is_busy:
            self.transport.close()
        else:
            super().shutdown()  # type: ignore[misc]

    def send_400_response(self, msg: str) -> None:
        """Answer with a problem instead of uvicorn's plain text."""
        self.refuse(400)

    # Called by the parsers.

    def note_head(self) -> None:
        """Record that the head of a request is complete."""
        self._num_unparsed = 0
        self._disarm()
        self._book.end_waiting(self)

    def note_progress(self) -> None:
        """Record that the parser's buffer is empty."""
        self._num_unparsed = 0

    def refuse(self, status: int) -> None:
        """Answer with a problem, read nothing more, and close the connection.

        Complete requests get their responses first. If the body of a request is faulty after its response has begun,
        the response is cut off.
        """
        if self._is_refused:
            return
        self._is_refused = True
        self._book.note_refusal(self)
        self._num_unparsed = 0
        self._disarm()
        self._unset_keepalive_if_required()  # type: ignore[attr-defined]
        if self._is_busy and not self.cycle.more_body:
            self.cycle.keep_alive = False
            return
        if self._is_busy:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started or self.pipeline:
                self.transport.close()
                return
        self._write_problem(status)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._timer = self.loop.call_later(_LINGER_S, self.transport.abort)

    def _begin_reading(self) -> None:
        self._arm()
        self.transport.resume_reading()

    def _drop(self, data: bytes) -> None:
        self._num_unparsed += len(data)
        if self._num_unparsed > _LINGER_BYTES:
            self.transport.abort()

    def _arm(self) -> None:
        self._timer = self.loop.call_later(self._book.limits.head_timeout_s, self._on_head_timeout)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_head_timeout(self) -> None:
        self._timer = None
        if self._num_unparsed:
            self.refuse(408)
        else:  # there is no request, or it was answered and its body still arrives
            self.transport.close()

    def _write_problem(self, status: int) -> None:
        request_id = uuid.uuid4().hex
        code, detail = _REFUSALS[status]
        phrase = HTTPStatus(status).phrase
        scope = {"path": "", "state": {"request_id": request_id}}
        body = problem_body(scope, status=status, title=phrase, detail=detail, code=code)
        fields = {
            "content-type": PROBLEM_MEDIA_TYPE,
            "content-length": str(len(body)),
            "connection": "close",
            "x-request-id": request_id,
            **SAFE_HEADERS,
            **({"retry-after": "1"} if status == 503 else {}),
        }
        lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in fields.items())]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        if self.config.metrics is not None:
            self.config.metrics.refuse(Answered(OTHER_METHOD, NO_ROUTE, status, sent=len(body), code=code))
        with handling(request=request_id):
            log.info("A connection or a head was refused with %d.", status)


def _drop_silent_readers(sock: Any, timeout_s: float) -> None:
    """Make the kernel close the connection if the client acknowledges no data for `timeout_s` seconds.

    Otherwise a client that never reads would keep its response in memory for ever. Linux only (TCP_USER_TIMEOUT).
    """
    if sock.family != socket.AF_UNIX and hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, round(timeout_s * 1_000)))


def _address_of(sock: Any) -> str:
    """Return the key of a client: its IPv4 address or its IPv6 /64 network; empty for a Unix socket."""
    try:
        peer = sock.getpeername()
    except OSError:  # the client has disconnected already
        return ""
    if not isinstance(peer, tuple):
        return ""
    address = ipaddress.ip_address(peer[0].partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.IPv6Network((address, 64), strict=False))
        address = address.ipv4_mapped
    return str(address)

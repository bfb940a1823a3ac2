"""What one client may hold of this server before any request is there: connections, heads of requests, time.

`BoundedConnection` is mixed into uvicorn's protocol classes (see `parsers`), whichever parses; `ConnectionBook` counts
the connections of one server. Knows nothing of applications. Runs on the event loop.
"""

import asyncio
import ipaddress
import logging
import socket
import uuid
from collections import Counter
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from app.api.problems import PROBLEM_MEDIA_TYPE, problem_body

log = logging.getLogger("foxhound.access")

MAX_HEAD_BYTES = 65_536
# Requests that one connection may send ahead of the answer to its first.
MAX_PIPELINED = 16
# After an answer that ends the connection, what the client has under way already is read and dropped, so that the
# answer reaches it: a socket closed with bytes unread resets the connection.
_LINGER_S = 1.0
_LINGER_BYTES = 1_000_000

_REFUSALS = {
    400: ("malformed_request", "The request is not HTTP as this server reads it."),
    408: ("head_too_slow", "The head of the request did not arrive in time; send it at once."),
    431: ("head_too_large", f"Request line and headers may have {MAX_HEAD_BYTES} bytes together; send fewer."),
    501: ("not_implemented", "Send the body as it is or chunked; no other transfer encoding is read."),
    503: ("too_many_connections", "Too many connections are open; close some, or try again later."),
}


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What a server grants.

    Attributes:
        connections: Most connections at a time, >= 1.
        per_address: Most connections of one address, >= 1; 0: no such limit.
        head_timeout_s: Time in which the head of a request must arrive, counted from the connection's begin or from
            the first byte behind the request before, > 0.
        read_timeout_s: Time for which a client may take no byte of an answer, > 0.
    """

    connections: int = 1_000
    per_address: int = 0
    head_timeout_s: float = 30.0
    read_timeout_s: float = 30.0


class ConnectionBook:
    """The connections of one server, by address, and those among them that wait for a request.

    Where one too many comes, the connection that has waited longest without a request gives way to it; only where all
    are at work is the new one refused. So idle connections, however many, keep nobody out.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        """Begin without connections."""
        self.limits = limits
        self._addresses: dict[BoundedConnection, str] = {}
        self._counts: Counter[str] = Counter()
        # By address too, each in the order in which they began to wait.
        self._waiting: dict[BoundedConnection, None] = {}
        self._waiting_by_address: dict[str, dict[BoundedConnection, None]] = {}

    def admit(self, connection: "BoundedConnection", address: str) -> bool:
        """Enter a new connection, in the place of an idle one if need be; False if there is no room."""
        limits = self.limits
        if limits.per_address and address and self._counts[address] >= limits.per_address:
            if not self._evict_from(self._waiting_by_address.get(address, {})):
                return False
        elif len(self._addresses) >= limits.connections and not self._evict_from(self._waiting):
            return False
        self._addresses[connection] = address
        self._counts[address] += 1
        self.begin_waiting(connection)
        return True

    def begin_waiting(self, connection: "BoundedConnection") -> None:
        """Note that a connection has no request under way."""
        address = self._addresses.get(connection)
        if address is not None:
            self._waiting[connection] = None
            self._waiting_by_address.setdefault(address, {})[connection] = None

    def end_waiting(self, connection: "BoundedConnection") -> None:
        """Note that a connection has a request."""
        if connection in self._waiting:
            del self._waiting[connection]
            address = self._addresses[connection]
            waiting = self._waiting_by_address[address]
            del waiting[connection]
            if not waiting:
                del self._waiting_by_address[address]

    def leave(self, connection: "BoundedConnection") -> None:
        """Strike a connection out, if it is still in."""
        self.end_waiting(connection)
        address = self._addresses.pop(connection, None)
        if address is not None:
            self._counts[address] -= 1
            if not self._counts[address]:
                del self._counts[address]

    def _evict_from(self, waiting: "dict[BoundedConnection, None]") -> bool:
        oldest = next(iter(waiting), None)
        if oldest is None:
            return False
        self.leave(oldest)
        oldest.transport.abort()
        return True


class BoundedConnection(asyncio.Protocol):
    """A connection whose request heads are bounded in bytes and in time, to be mixed into a protocol of uvicorn's.

    Counts the bytes since the parser last gave something (a head, a piece of a body, the end of a message), so it
    bounds whatever a parser would gather: request lines, headers, chunk extensions, trailers.
    """

    # What uvicorn's protocol classes have.
    config: Any
    cycle: Any
    loop: Any
    transport: Any
    # Requests that were read ahead of their turn; h11 reads none.
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

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or refuse it unread."""
        super().connection_made(transport)
        limits = self._book.limits
        sock = transport.get_extra_info("socket")
        _drop_silent_readers(sock, limits.read_timeout_s)
        if not self._book.admit(self, _address_of(sock)):
            self._write_problem(503)
            self.transport.close()
            return
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._book.leave(self)
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, in pieces that cannot exceed what it may gather."""
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
        """Wait for the next request, if there is not one already."""
        super().on_response_complete()  # type: ignore[misc]
        if not self._is_busy:
            self._book.begin_waiting(self)

    def shutdown(self) -> None:
        """Close when the answer under way is out, or now."""
        if self._is_refused and not self._is_busy:
            self.transport.close()
        else:
            super().shutdown()  # type: ignore[misc]

    def send_400_response(self, msg: str) -> None:
        """Answer in place of uvicorn, which would do so as plain text."""
        self.refuse(400)

    # What the parsers call.

    def note_head(self) -> None:
        """Note that the head of a request is complete."""
        self._num_unparsed = 0
        self._disarm()
        self._book.end_waiting(self)

    def note_progress(self) -> None:
        """Note that the parser holds nothing of what has come."""
        self._num_unparsed = 0

    def refuse(self, status: int) -> None:
        """Answer what was sent with a problem, take nothing more, and close.

        Requests that are whole get their answers first; an answer that has begun to a request whose body is faulty is
        cut off.
        """
        if self._is_refused:
            return
        self._is_refused = True
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
        else:  # nothing was asked, or it was answered long ago and its body still comes
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
            "x-content-type-options": "nosniff",
            **({"retry-after": "1"} if status == 503 else {}),
        }
        lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in fields.items())]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        log.info("- - %d %s", status, request_id)


def _drop_silent_readers(sock: Any, timeout_s: float) -> None:
    """Let the kernel close the connection once the client has taken nothing of what waits for it for so long.

    Otherwise a client that asks and never reads would keep the answer in our memory for ever. Linux only.
    """
    if sock.family != socket.AF_UNIX and hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, round(timeout_s * 1_000)))


def _address_of(sock: Any) -> str:
    """Return what counts as one client: an IPv4 address, an IPv6 network of 64 bits; empty for a Unix socket."""
    try:
        peer = sock.getpeername()
    except OSError:  # it has left already
        return ""
    if not isinstance(peer, tuple):
        return ""
    address = ipaddress.ip_address(peer[0].partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.IPv6Network((address, 64), strict=False))
        address = address.ipv4_mapped
    return str(address)

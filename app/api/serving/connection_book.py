"""The open connections of one server: limits in all and per address, and pauses after refused heads.

Imports no application. Runs on the event loop.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Protocol

from app.api.serving.refusals import MAX_WAIT_S, RefusalBook

# What a refused head costs its address: 64 KiB parsed and up to a megabyte dropped take 1 to 5 ms.
_REFUSED_HEAD_S = 0.005


class Connection(Protocol):
    """A connection as the book sees it."""

    transport: Any


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of the connections of one server.

    Attributes:
        connections: Maximum number of open connections, >= 1.
        per_address: Maximum number of open connections of one address, >= 1; 0: no limit.
        refused_share: Part of the node's time that one address may spend on refused heads, 0 ... 1; 0: no limit.
        head_timeout_s: Maximum time for the head of a request to arrive, in seconds, > 0; counted from the start of
            the connection or from the first byte after the previous request.
        read_timeout_s: Maximum time without progress while a client reads a response, in seconds, > 0.
    """

    connections: int = 1_000
    per_address: int = 0
    refused_share: float = 0.0
    head_timeout_s: float = 30.0
    read_timeout_s: float = 30.0


class ConnectionBook:
    """The open connections of one server by address, and which of them are idle.

    At a limit, a new connection replaces the one that has been idle for longest; it is refused only if all are busy. So
    idle connections never keep clients out.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        """Start without connections."""
        self.limits = limits
        self._refusals = RefusalBook(limits.refused_share)
        self._addresses: dict[Connection, str] = {}
        self._counts: Counter[str] = Counter()
        # Idle connections, oldest first; in all, and by address.
        self._waiting: dict[Connection, None] = {}
        self._waiting_by_address: dict[str, dict[Connection, None]] = {}

    def admit(self, connection: Connection, address: str) -> bool:
        """Add a new connection, in place of an idle one if necessary; return False if all are busy."""
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

    def pause_s(self, address: str) -> float:
        """Return the seconds for which nothing is read from a new connection, because of refused heads."""
        return min(self._refusals.wait_s(address), MAX_WAIT_S)

    def note_refusal(self, connection: Connection) -> None:
        """Record that the head of a connection's request was refused."""
        self._refusals.charge(self._addresses.get(connection, ""), _REFUSED_HEAD_S)

    def begin_waiting(self, connection: Connection) -> None:
        """Record that a connection has no running request."""
        address = self._addresses.get(connection)
        if address is not None:
            self._waiting[connection] = None
            self._waiting_by_address.setdefault(address, {})[connection] = None

    def end_waiting(self, connection: Connection) -> None:
        """Record that a connection has a running request."""
        if connection in self._waiting:
            del self._waiting[connection]
            address = self._addresses[connection]
            waiting = self._waiting_by_address[address]
            del waiting[connection]
            if not waiting:
                del self._waiting_by_address[address]

    def leave(self, connection: Connection) -> None:
        """Remove a connection, if it is still present."""
        self.end_waiting(connection)
        address = self._addresses.pop(connection, None)
        if address is not None:
            self._counts[address] -= 1
            if not self._counts[address]:
                del self._counts[address]

    def _evict_from(self, waiting: dict[Connection, None]) -> bool:
        oldest = next(iter(waiting), None)
        if oldest is None:
            return False
        self.leave(oldest)
        oldest.transport.abort()
        return True

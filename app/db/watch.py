"""Names a transaction that makes no progress, while it is still open: where its thread is, and for how long.

A transaction that waits for its own process keeps the whole node waiting on SQLite; the log then says who it is. Knows
nothing of tables and tells neither SQL nor values. Looks from a thread of its own, which begins with the first
transaction.
"""

import logging
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.engine import Connection

logger = logging.getLogger(__name__)

# Others give up after 10 s (`SQLITE_BUSY_TIMEOUT_MS`); ours take milliseconds.
SLOW_TRANSACTION_S = 5.0

_NUM_FRAMES = 4


@dataclass(slots=True)
class _Open:
    """A transaction under way, and the thread that has begun it."""

    thread_id: int
    begun_at: float
    is_told: bool = False


class TransactionWatch:
    """Watches the transactions of one SQLAlchemy engine."""

    def __init__(self, db_engine: Engine, *, slow_s: float) -> None:
        """Watch an engine's connections.

        Args:
            db_engine: Has its own listeners for `begin` already, so that waiting for the write lock is not counted.
            slow_s: How long a transaction may be open before it is named, in seconds, > 0.
        """
        self._slow_s = slow_s
        self._open: dict[int, _Open] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        event.listen(db_engine, "begin", self._on_begin)
        event.listen(db_engine, "checkin", self._on_end)
        event.listen(db_engine, "invalidate", self._on_end)

    def close(self) -> None:
        """End the thread."""
        self._stop.set()

    def _on_begin(self, connection: Connection) -> None:
        with self._lock:
            self._open[id(connection.connection.dbapi_connection)] = _Open(threading.get_ident(), time.monotonic())
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, name="transaction-watch", daemon=True)
                self._thread.start()

    def _on_end(self, dbapi_connection: Any, *_: Any) -> None:
        with self._lock:
            ended = self._open.pop(id(dbapi_connection), None)
        if ended is not None and ended.is_told:
            logger.warning("The transaction that was named has ended after %.1f s.", time.monotonic() - ended.begun_at)

    def _look(self) -> None:
        while not self._stop.wait(self._slow_s / 2):
            with self._lock:
                now = time.monotonic()
                slow = [each for each in self._open.values() if now - each.begun_at > self._slow_s and not each.is_told]
                for each in slow:
                    each.is_told = True
            for each in slow:
                where = " < ".join(_places(sys._current_frames().get(each.thread_id))) or "a thread that has ended"
                logger.warning("A transaction is open for %.1f s and goes on, in %s.", now - each.begun_at, where)


def _places(frame: FrameType | None) -> list[str]:
    """Return where a thread is: its innermost function, and those of ours from the inside on."""
    frames = list(_outwards(frame))
    ours = [each for each in frames[1:] if each.f_globals.get("__name__", "").startswith("app.")]
    return [
        f"{each.f_globals.get('__name__')}.{each.f_code.co_qualname}" for each in [*frames[:1], *ours[:_NUM_FRAMES]]
    ]


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back

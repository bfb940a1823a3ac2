"""Logs a transaction that stays open for too long: how long, and which functions its thread is in.

On SQLite, a transaction that waits for its own process blocks the whole node; the log then names it. Imports no tables
and logs neither SQL nor values. The check runs on its own daemon thread, which starts with the first transaction.
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

# Transactions take milliseconds; others that wait for the lock give up after 10 s (`SQLITE_BUSY_TIMEOUT_MS`).
SLOW_TRANSACTION_S = 5.0

_NUM_FRAMES = 4


@dataclass(slots=True)
class _Open:
    """An open transaction and the thread that began it."""

    thread_id: int
    begun_at: float
    is_logged: bool = False


class TransactionWatch:
    """Watches the transactions of one SQLAlchemy engine."""

    def __init__(self, db_engine: Engine, *, slow_s: float) -> None:
        """Watch the connections of an engine.

        Args:
            db_engine: The engine, with all its other `begin` listeners, so that the wait for the write lock does not
                count.
            slow_s: Time after which an open transaction is logged, in seconds, > 0.
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
        """Stop the thread."""
        self._stop.set()

    def _on_begin(self, connection: Connection) -> None:
        with self._lock:
            self._open[id(connection.connection.dbapi_connection)] = _Open(threading.get_ident(), time.monotonic())
            if self._thread is None:
                self._thread = threading.Thread(target=self._check, name="transaction-watch", daemon=True)
                self._thread.start()

    def _on_end(self, dbapi_connection: Any, *_: Any) -> None:
        with self._lock:
            ended = self._open.pop(id(dbapi_connection), None)
        if ended is not None and ended.is_logged:
            logger.warning("The slow transaction has ended after %.1f s.", time.monotonic() - ended.begun_at)

    def _check(self) -> None:
        while not self._stop.wait(self._slow_s / 2):
            with self._lock:
                now = time.monotonic()
                slow = [
                    each for each in self._open.values() if now - each.begun_at > self._slow_s and not each.is_logged
                ]
                for each in slow:
                    each.is_logged = True
            for each in slow:
                where = (
                    " < ".join(_function_names(sys._current_frames().get(each.thread_id))) or "a thread that has ended"
                )
                logger.warning(
                    "A transaction has been open for %.1f s; its thread is in %s.", now - each.begun_at, where
                )


def _function_names(frame: FrameType | None) -> list[str]:
    """Return a thread's innermost function, then the application's functions from the inside out."""
    frames = list(_stack(frame))
    own = [each for each in frames[1:] if each.f_globals.get("__name__", "").startswith("app.")]
    return [f"{each.f_globals.get('__name__')}.{each.f_code.co_qualname}" for each in [*frames[:1], *own[:_NUM_FRAMES]]]


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back

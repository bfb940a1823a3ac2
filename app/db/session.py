"""The database of a process: engine, transactions, and SQLite's pragmas.

Imports no tables. Each process creates one `Database`, never at import; any thread may use it.
"""

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.engine import URL, Connection
from sqlalchemy.orm import Session, sessionmaker

import app.db.redaction  # noqa: F401  (installs a listener for every engine)
from app.db.outages import mark_lost_connection, translated
from app.db.watch import SLOW_TRANSACTION_S, TransactionWatch

SQLITE_BUSY_TIMEOUT_MS = 10_000

# Far above the length of any transaction of Foxhound; after it, Postgres ends the session of a frozen process.
IDLE_TRANSACTION_S = 60.0

# Detects a server that disappears without closing the connection (machine or network failure) within half a minute; the
# defaults of operating systems take two hours. Times are in seconds, `tcp_user_timeout` in milliseconds.
_POSTGRES_CONNECTION = {
    "keepalives": 1,
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}

# Two processes that write a WAL file can corrupt it before these versions (the WAL-reset bug of 3.7.0 to
# 3.51.2, with two backports); an older library uses the rollback journal.
_WAL_SAFE_FROM = (3, 51, 3)
_WAL_BACKPORTS = ((3, 44, 6), (3, 50, 7))


def wal_is_safe(version: tuple[int, int, int] = sqlite3.sqlite_version_info) -> bool:
    """Return whether more than one process may use this version of SQLite in WAL mode."""
    return version >= _WAL_SAFE_FROM or any(version[:2] == fix[:2] and version >= fix for fix in _WAL_BACKPORTS)


def database_url(url: str) -> URL:
    """Parse a database URL and set its driver: psycopg 3 for Postgres, the standard library for SQLite.

    Raises:
        ValueError: The URL names another database or cannot be parsed.
    """
    parsed = make_url(re.sub(r"^postgres://", "postgresql://", url))
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite":
        return parsed.set(drivername="sqlite+pysqlite")
    raise ValueError("the database must be SQLite or Postgres")


def make_db_engine(
    url: str,
    *,
    pool_size: int = 10,
    idle_transaction_s: float = IDLE_TRANSACTION_S,
    locks_at_begin: bool = True,
) -> Engine:
    """Create a database engine; each connection to a SQLite file gets its pragmas.

    Args:
        url: `sqlite:///path` or `postgresql://...`.
        pool_size: Connections kept open, >= 1.
        idle_transaction_s: Maximum idle time of a transaction, in seconds, > 0. Postgres then ends the session, which
            frees the locks of a frozen process. Ignored for SQLite.
        locks_at_begin: Whether SQLite takes its write lock when a transaction begins, as `Database` needs it; else
            with the first statement that writes, as the job engine needs it.
    """
    parsed = database_url(url)
    if parsed.get_backend_name() == "sqlite":
        db_engine = create_engine(parsed, pool_size=pool_size, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_MS / 1000})
        event.listen(db_engine, "connect", _set_pragmas)
        if locks_at_begin:
            event.listen(db_engine, "begin", _begin)
        else:
            event.listen(db_engine, "connect", _lock_when_writing)
    else:
        db_engine = create_engine(
            parsed,
            pool_size=pool_size,
            max_overflow=5,
            pool_pre_ping=True,
            pool_timeout=10,
            connect_args={name: value for name, value in _POSTGRES_CONNECTION.items() if name not in parsed.query},
        )
        event.listen(db_engine, "connect", _bound_idling(idle_transaction_s))
    event.listen(db_engine, "handle_error", mark_lost_connection)
    return db_engine


def close_db_engine(db_engine: Engine) -> None:
    """Close the connections of an engine; one that a thread still uses is closed when it returns to the pool.

    `Engine.dispose` alone closes the unused ones, and leaves the others open until garbage collection.
    """
    event.listen(db_engine.pool, "checkin", lambda _connection, record: record.invalidate())
    db_engine.dispose()


class Database:
    """A database with two kinds of transactions: `transaction` writes, `snapshot` reads."""

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 10,
        idle_transaction_s: float = IDLE_TRANSACTION_S,
        slow_s: float = SLOW_TRANSACTION_S,
    ) -> None:
        """Create the engine, with the arguments of `make_db_engine` and `TransactionWatch`; connects lazily."""
        self.engine = make_db_engine(url, pool_size=pool_size, idle_transaction_s=idle_transaction_s)
        path = sqlite_path(url)
        self._folder = path.parent if path is not None else None
        self._watch = TransactionWatch(self.engine, slow_s=slow_s)
        self._writing = sessionmaker(self.engine, expire_on_commit=False)
        self._reading = sessionmaker(self.engine.execution_options(foxhound_reads=True), expire_on_commit=False)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Open a session that commits at the end of the block, or rolls back and re-raises.

        Raises:
            DatabaseUnavailable: The database cannot be reached, stays locked, or has ended the session because the
                transaction was idle for too long.
            DatabaseFull: The database has no room left.
        """
        with translated(self._folder), self._writing.begin() as session:
            yield session

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        """Open a session that only reads; on SQLite it takes no write lock.

        Raises:
            DatabaseUnavailable: The database cannot be reached.
        """
        with translated(self._folder), self._reading() as session:
            yield session

    def close(self) -> None:
        """Close every connection; one that a thread still uses is closed at the end of its transaction."""
        self._watch.close()
        close_db_engine(self.engine)


def sqlite_path(url: str) -> Path | None:
    """Return the file of a SQLite URL; None for Postgres."""
    parsed = database_url(url)
    return Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None


def _set_pragmas(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # disables the driver's own BEGIN; `_begin` issues it
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={SQLITE_BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute(f"PRAGMA journal_mode={'WAL' if wal_is_safe() else 'DELETE'}")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA temp_store=MEMORY")  # otherwise a large sort needs room on the disk
    # Otherwise a transaction that changes more pages than the cache holds writes them before its commit, which locks
    # readers out. One reader is the job engine: it reads its workflow on a second connection in the thread of the same
    # transaction (`SQLAlchemyDatasource.run_tx_step`), which would be a deadlock.
    cursor.execute("PRAGMA cache_spill=OFF")
    cursor.close()


def _bound_idling(limit_s: float) -> Callable[[Any, Any], None]:
    # A statement instead of a startup parameter, because poolers such as PgBouncer refuse the latter.
    def set_limit(connection: Any, _record: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET idle_in_transaction_session_timeout = {round(limit_s * 1000)}")
        connection.commit()

    return set_limit


def _lock_when_writing(connection: Any, _record: Any) -> None:
    connection.isolation_level = "IMMEDIATE"


def _begin(connection: Connection) -> None:
    # Under contention, a transaction that reads first and writes later fails at once (SQLITE_BUSY_SNAPSHOT), whatever
    # the busy timeout. BEGIN IMMEDIATE waits for the lock instead.
    reads = connection.get_execution_options().get("foxhound_reads", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

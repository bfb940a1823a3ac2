"""The database of a process and its transactions; the one place for SQLite's pragmas.

Knows nothing of tables. A `Database` is made once per process, never at import; any thread may use it.
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

import app.db.redaction  # noqa: F401  (its listener holds for every engine)
from app.db.outages import mark_lost_connection, translated
from app.db.watch import SLOW_TRANSACTION_S, TransactionWatch

SQLITE_BUSY_TIMEOUT_MS = 10_000

# Far above what any of our transactions takes; after it Postgres ends the session of a process that stands still.
IDLE_TRANSACTION_S = 60.0

# A server that is gone without a word (its machine, or the network between) is noticed within half a minute, where the
# defaults of an operating system wait for two hours. All but the first are in seconds, the last one is in milliseconds.
_POSTGRES_CONNECTION = {
    "keepalives": 1,
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}

# Two processes that write a WAL file can corrupt it before these versions (the WAL-reset bug of 3.7.0 to
# 3.51.2, with two backports); on an older library we keep the rollback journal.
_WAL_SAFE_FROM = (3, 51, 3)
_WAL_BACKPORTS = ((3, 44, 6), (3, 50, 7))


def wal_is_safe(version: tuple[int, int, int] = sqlite3.sqlite_version_info) -> bool:
    """Tell whether this SQLite may be used in WAL mode by more than one process."""
    return version >= _WAL_SAFE_FROM or any(version[:2] == fix[:2] and version >= fix for fix in _WAL_BACKPORTS)


def database_url(url: str) -> URL:
    """Parse a database URL and settle its driver: psycopg 3 for Postgres, the standard library for SQLite.

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
    """Open a database engine; SQLite files get their pragmas on every connection.

    Args:
        url: `sqlite:///path` or `postgresql://...`.
        pool_size: Connections kept open, >= 1.
        idle_transaction_s: How long a transaction may stand still before Postgres ends it, so that a process that was
            frozen within one keeps its locks no longer, in seconds, > 0. SQLite knows no such thing.
        locks_at_begin: Whether SQLite takes its write lock when a transaction begins, as those of `Database` want it;
            else with the first statement that writes, as the job engine wants it.
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


class Database:
    """A database with its two kinds of transactions."""

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 10,
        idle_transaction_s: float = IDLE_TRANSACTION_S,
        slow_s: float = SLOW_TRANSACTION_S,
    ) -> None:
        """Open the database lazily, with the arguments of `make_db_engine` and `TransactionWatch`.

        Nothing is connected yet.
        """
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
            DatabaseUnavailable: The database cannot be reached, or stays locked, or has ended the session because this
                process stood still within it.
            DatabaseFull: It has no room left.
        """
        with translated(self._folder), self._writing.begin() as session:
            yield session

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        """Open a session for reading alone; on SQLite it takes no write lock.

        Raises:
            DatabaseUnavailable: The database cannot be reached.
        """
        with translated(self._folder), self._reading() as session:
            yield session

    def close(self) -> None:
        """Close every pooled connection."""
        self._watch.close()
        self.engine.dispose()


def sqlite_path(url: str) -> Path | None:
    """Return the file of a SQLite URL; None for Postgres."""
    parsed = database_url(url)
    return Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None


def _set_pragmas(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # pysqlite must not begin transactions of its own: _begin does
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={SQLITE_BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute(f"PRAGMA journal_mode={'WAL' if wal_is_safe() else 'DELETE'}")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA temp_store=MEMORY")  # else a sort needs room on a disk
    # A transaction that has changed more pages than the cache holds would write them before its commit, which locks
    # readers out from there on: among them the job engine, which asks for its workflow on a connection of its own, in
    # the thread of that very transaction (`SQLAlchemyDatasource.run_tx_step`), and so would wait for itself for ever.
    cursor.execute("PRAGMA cache_spill=OFF")
    cursor.close()


def _bound_idling(limit_s: float) -> Callable[[Any, Any], None]:
    # A statement and no start parameter, which poolers such as PgBouncer refuse.
    def set_limit(connection: Any, _record: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET idle_in_transaction_session_timeout = {round(limit_s * 1000)}")
        connection.commit()

    return set_limit


def _lock_when_writing(connection: Any, _record: Any) -> None:
    connection.isolation_level = "IMMEDIATE"


def _begin(connection: Connection) -> None:
    # A transaction that reads first and writes later fails at once under contention (SQLITE_BUSY_SNAPSHOT),
    # whatever the busy timeout; one that announces its writing waits.
    reads = connection.get_execution_options().get("foxhound_reads", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

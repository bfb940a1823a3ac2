"""Decides which errors mean that the database is unavailable, so that the work must wait and be tried again.

The only place that decides it, for the errors of both drivers, of SQLAlchemy and of Foxhound. Imports no jobs and no
HTTP and opens no connection; any thread may call it.
"""

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.errors import NO_ROOM_ERRNOS, AppError, DatabaseFull, DatabaseUnavailable

# `Retry-After` of the answer, in seconds.
RETRY_AFTER_S = 5

# SQLSTATE classes: connection exception, transaction rollback (deadlock, serialization), insufficient resources
# (memory, disk, connections), operator intervention (shutdown, crash, time limit), system error (I/O).
# Source: PostgreSQL documentation, appendix A.
_AWAY_CLASSES = ("08", "40", "53", "57", "58")
# Read-only after a failover; session ended by the idle-in-transaction timeout; lock not available.
_AWAY_STATES = ("25006", "25P03", "55P03")
_DISK_FULL = "53100"
# The connection is intact, and a retry on it may succeed.
_PASSING_CLASS, _PASSING_STATES = "40", ("55P03", "57014")

_SQLITE_PASSING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_SQLITE_AWAY = (
    *_SQLITE_PASSING,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_READONLY,
)
# SQLite reports SQLITE_FULL only for a plain ENOSPC. For a full quota, or a journal without room, it reports one of
# these, as it does for a failing disk.
_SQLITE_WRITE_ERRORS = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
_PROBE_BYTES = 65_536


@contextmanager
def translated(folder: Path | None = None) -> Iterator[None]:
    """Raise every outage of the database inside the block as an `AppError`.

    Args:
        folder: Folder of the SQLite file; used to distinguish a full disk from a failing one.

    Raises:
        DatabaseUnavailable: The database cannot be reached, is read-only or stays locked.
        DatabaseFull: The database has no room left.
    """
    try:
        yield
    except AppError:
        raise
    except Exception as error:
        outage = as_app_error(error, folder)
        if outage is None:
            raise
        raise outage from error


def is_outage(error: BaseException) -> bool:
    """Return whether an error means that the database is unreachable, full, read-only or locked by others.

    The same work may succeed later; it must be tried again and must not be recorded as failed.
    """
    if isinstance(error, DatabaseUnavailable | DatabaseFull | PoolTimeout):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return _is_away(_driver_error(error)) or any(_is_full(each, None) for each in _chain(error))


def as_app_error(error: BaseException, folder: Path | None = None) -> AppError | None:
    """Return `DatabaseFull` or `DatabaseUnavailable` for an outage; None for any other error.

    Args:
        error: Any error.
        folder: Folder of the SQLite file.
    """
    if not is_outage(error):
        return None
    if isinstance(error, AppError):
        return error
    if any(_is_full(each, folder) for each in _chain(error)):
        return DatabaseFull()
    return DatabaseUnavailable(retry_after_s=RETRY_AFTER_S)


def mark_lost_connection(context: ExceptionContext) -> None:
    """Mark every outage except a lock conflict as a lost connection; a listener of SQLAlchemy's `handle_error`.

    SQLAlchemy then opens new connections, and the job engine retries instead of recording a failure of the work.
    """
    cause = context.original_exception
    if not _is_away(cause) or _is_passing(cause):
        return
    context.is_disconnect = True
    if isinstance(cause, sqlite3.Error) and context.connection is not None:
        # A closed connection keeps its lock while a statement object exists, for example in a traceback.
        with suppress(sqlite3.Error):
            context.connection.connection.rollback()


def _is_away(error: BaseException | None) -> bool:
    if isinstance(error, sqlite3.Error):
        return _sqlite_code(error) in _SQLITE_AWAY
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:  # raised by the client library: unknown host, connection refused or lost
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate[:2] in _AWAY_CLASSES or error.sqlstate in _AWAY_STATES


def _is_full(error: BaseException, folder: Path | None) -> bool:
    cause = _driver_error(error)
    if isinstance(cause, sqlite3.Error):
        code = _sqlite_code(cause)
        if code in _SQLITE_WRITE_ERRORS:
            return folder is not None and not _takes_bytes(folder)
        return code == sqlite3.SQLITE_FULL
    return isinstance(cause, psycopg.Error) and cause.sqlstate == _DISK_FULL


def _driver_error(error: BaseException) -> BaseException | None:
    return error.orig if isinstance(error, DBAPIError) else error


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes. A full SQLite drops its savepoints, so a rollback to one hides the error."""
    each: BaseException | None = error
    while each is not None:
        yield each
        each = each.__cause__ or each.__context__


def _takes_bytes(folder: Path) -> bool:
    """Return whether a small file can be written to a folder; True also if it fails for another reason than room."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
    except OSError as error:
        return error.errno not in NO_ROOM_ERRNOS
    return True


def _is_passing(error: BaseException) -> bool:
    if isinstance(error, sqlite3.Error):
        return _sqlite_code(error) in _SQLITE_PASSING
    state = (error.sqlstate or "") if isinstance(error, psycopg.Error) else ""
    return state[:2] == _PASSING_CLASS or state in _PASSING_STATES


def _sqlite_code(error: sqlite3.Error) -> int | None:
    """Return the primary result code; None for errors that the Python module itself raises."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF

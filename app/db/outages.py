"""Which errors mean that the database is away, for a moment or for longer: nothing is wrong, the work has to wait.

The one place that decides it, for what both drivers raise and for what SQLAlchemy and we make of that. Knows no single
database, no jobs and no HTTP; any thread may ask.
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

# What a client is asked to wait before it tries again.
RETRY_AFTER_S = 5

# SQLSTATE classes: lost connection, rolled back for another one's sake, no resources (memory, disk, connections),
# operator's intervention (shutdown, crash, time limit), fault of the system below (disk).
_AWAY_CLASSES = ("08", "40", "53", "57", "58")
# Read-only after a failover; a session ended for standing still; another one's lock.
_AWAY_STATES = ("25006", "25P03", "55P03")
_DISK_FULL = "53100"
# The connection is sound, and another try on it may succeed.
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
# SQLite reports a full disk as such for a plain ENOSPC alone; for a quota, or where its journal finds no room, it
# reports one of these, as for a disk that fails.
_SQLITE_WRITE_ERRORS = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
_PROBE_BYTES = 65_536


@contextmanager
def translated(folder: Path | None = None) -> Iterator[None]:
    """Turn every outage of the database into an error of ours.

    Args:
        folder: Where the file of a SQLite database lies; tells a full disk from one that fails.

    Raises:
        DatabaseUnavailable: The database cannot be reached, is read-only or stays locked.
        DatabaseFull: It has no room left.
    """
    try:
        yield
    except AppError:
        raise
    except Exception as error:
        told = as_app_error(error, folder)
        if told is None:
            raise
        raise told from error


def is_outage(error: BaseException) -> bool:
    """Tell whether an error says of the database that it cannot be reached, is full, read-only or held by others.

    The same work may succeed later, so that it must neither fail for it nor be taken for done.
    """
    if isinstance(error, DatabaseUnavailable | DatabaseFull | PoolTimeout):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return _is_away(_driver_error(error)) or any(_is_full(each, None) for each in _chain(error))


def as_app_error(error: BaseException, folder: Path | None = None) -> AppError | None:
    """Return what an outage is told as: `DatabaseFull` or `DatabaseUnavailable`; None for any other error.

    Args:
        error: Any error.
        folder: Where the file of a SQLite database lies.
    """
    if not is_outage(error):
        return None
    if isinstance(error, AppError):
        return error
    if any(_is_full(each, folder) for each in _chain(error)):
        return DatabaseFull()
    return DatabaseUnavailable(retry_after_s=RETRY_AFTER_S)


def mark_lost_connection(context: ExceptionContext) -> None:
    """Have SQLAlchemy take every outage, but for another one's lock, for a lost connection; a `handle_error` listener.

    It opens new connections then, and the job engine tries again what it otherwise records as the work's failure.
    """
    cause = context.original_exception
    if not _is_away(cause) or _is_passing(cause):
        return
    context.is_disconnect = True
    if isinstance(cause, sqlite3.Error) and context.connection is not None:
        # A closed connection keeps its lock for as long as a statement is alive, in a traceback, say.
        with suppress(sqlite3.Error):
            context.connection.connection.rollback()


def _is_away(error: BaseException | None) -> bool:
    if isinstance(error, sqlite3.Error):
        return _sqlite_code(error) in _SQLITE_AWAY
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:  # the client's own: no such host, refused, closed, cut off
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
    """Give an error and those before it: SQLite, once full, drops its savepoints, and rolling back to one fails."""
    each: BaseException | None = error
    while each is not None:
        yield each
        each = each.__cause__ or each.__context__


def _takes_bytes(folder: Path) -> bool:
    """Tell whether a small file can be written in a folder; True where it fails for another reason than room."""
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
    """Return the primary result code; None for what the Python module raises of its own."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF

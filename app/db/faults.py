"""What an error of the database means for who asked, and what of it may be logged: its words, without any value.

Knows nothing of tables. The listener holds for every engine of the process, the job engine's included; called on the
thread that the statement ran on.
"""

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DatabaseError, OperationalError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.errors import NO_ROOM_ERRNOS, DatabaseFull, DatabaseUnavailable

# SQLite tells only of the plain ENOSPC that the disk is full; of a quota, or where its journal finds no place, it tells
# one of these, as of a disk that fails.
_SQLITE_WRITE_ERRORS = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}
_PROBE_BYTES = 65_536
# "Data exception": what the server says of it may quote the value.
_DATA_EXCEPTIONS = "22"
_RETRY_AFTER_S = 5


@contextmanager
def translated(folder: Path | None) -> Iterator[None]:
    """Turn the database's failures into errors of ours.

    Args:
        folder: Where the file of a SQLite database lies.

    Raises:
        DatabaseFull: It has no room left.
        DatabaseUnavailable: It cannot be reached, or stays locked, or every connection is in use.
    """
    try:
        yield
    except (DatabaseError, PoolTimeout) as error:
        if any(_is_full(each, folder) for each in _chain(error)):
            raise DatabaseFull from error
        if not isinstance(error, (OperationalError, PoolTimeout)):
            raise
        raise DatabaseUnavailable(retry_after_s=_RETRY_AFTER_S) from error


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Give an error and those before it: SQLite, once full, forgets its savepoints, and rolling back to one fails."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _is_full(error: BaseException, folder: Path | None) -> bool:
    cause = error.orig if isinstance(error, DatabaseError) else None
    if isinstance(cause, psycopg.Error):
        return isinstance(cause, psycopg.errors.DiskFull)
    code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF  # without what SQLite adds in detail
    if code == sqlite3.SQLITE_FULL:
        return True
    return code in _SQLITE_WRITE_ERRORS and folder is not None and not _takes_bytes(folder)


def _takes_bytes(folder: Path) -> bool:
    """Tell whether a small file can be written in a folder; True where it fails for another reason than room."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
    except OSError as error:
        return error.errno not in NO_ROOM_ERRNOS
    return True


@event.listens_for(Engine, "handle_error")
def _keep_values_out(context: ExceptionContext) -> None:
    """Take the values out of an error before anybody logs it: a prompt or a key is nobody's but its user's."""
    wrapped, original = context.sqlalchemy_exception, context.original_exception
    if isinstance(wrapped, StatementError):
        wrapped.hide_parameters = True
    if isinstance(original, psycopg.Error) and original.sqlstate and original.diag.message_primary:
        # Its further lines quote the row, the key or the JSON that was refused; `diag` keeps them for code that asks.
        is_quoting = original.sqlstate.startswith(_DATA_EXCEPTIONS)
        words = f"SQLSTATE {original.sqlstate}" if is_quoting else original.diag.message_primary
        original.args = (words,)
        if wrapped is not None:
            kind = type(original)
            wrapped.args = (f"({kind.__module__}.{kind.__name__}) {words}",)

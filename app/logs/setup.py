"""Sends everything that a process logs, warns of or dies of through one handler with one of our formats.

Called once by a command that serves, before anything else runs. Imports nothing of the application.
"""

import logging
import os
import socket
import sys
import threading
import warnings
from typing import Any, Literal, TextIO

from app.logs.formats import JsonFormatter, TextFormatter

LogFormat = Literal["text", "json"]

logger = logging.getLogger("foxhound")

# Libraries that log each request or statement at INFO.
_NOISY = ("alembic", "dbos", "httpx", "httpcore", "uvicorn.access", "sqlalchemy", "urllib3", "opentelemetry")


def log_handler(log_format: LogFormat, process: str, stream: TextIO | None = None) -> logging.Handler:
    """Return the handler that writes one of our formats.

    Args:
        log_format: Which one.
        process: What the process is, such as `api` or `worker`.
        stream: Where lines go; default: standard error.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    members: dict[str, str | int] = {"process": process, "node": socket.gethostname(), "pid": os.getpid()}
    handler.setFormatter(JsonFormatter(members) if log_format == "json" else TextFormatter())
    return handler


def configure_logging(level: str, log_format: LogFormat, process: str, stream: TextIO | None = None) -> None:
    """Log to one handler alone; also warnings, and exceptions that nothing caught.

    Args:
        level: Least severity, in lower case.
        log_format: The format of the lines.
        process: As of `log_handler`.
        stream: As of `log_handler`.
    """
    # Otherwise `logging` prints the arguments of a record that it cannot format.
    logging.raiseExceptions = False
    root = logging.getLogger()
    root.handlers = [log_handler(log_format, process, stream)]
    root.setLevel(level.upper())
    # transformers and others write to standard error by handlers of their own.
    for name in list(logging.root.manager.loggerDict):
        library = logging.getLogger(name)
        library.handlers, library.propagate = [], True
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.showwarning = _log_warning  # type: ignore[assignment]
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_thread
    sys.unraisablehook = _log_unraisable


def _log_warning(_message: object, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
    """Log a warning without its text: pydantic's quote values."""
    logger.warning("A %s was issued at %s, line %d.", category.__name__, filename, lineno)


def _log_uncaught(_kind: type[BaseException], error: BaseException, _trace: object) -> None:
    logger.critical("The process ends with an error.", exc_info=error)


def _log_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_value is not None and not isinstance(ended.exc_value, SystemExit):
        name = ended.thread.name if ended.thread is not None else "unknown"
        logger.error("The thread %s ended with an error.", name, exc_info=ended.exc_value)


def _log_unraisable(seen: Any) -> None:
    """Log what Python would print with the object that it happened in."""
    logger.error("An error could not be raised.", exc_info=seen.exc_value)

"""The two formats of the log: lines of text for people, and lines of JSON.

One record is one line, whatever it contains; in the text format, further lines of an exception are indented and so are
no records. A message of another library is withheld unless its text is known to quote nobody: libraries format values
into their messages. Imports nothing of the application; runs on the thread that logs.
"""

import json
import logging
import time
from collections.abc import Mapping
from typing import Any, Final

from app.logs.context import job_id, request_id
from app.logs.errors import error_lines

# Loggers whose messages are shown: ours, and those of libraries whose messages were read. uvicorn logs the stages of a
# server, Alembic the names of revisions.
_TRUSTED: Final = ("app", "foxhound", "uvicorn.error", "alembic", "bench", "testing", "tests")

# Attribute of a record with further members of its JSON object, as `extra={"fields": {...}}`.
FIELDS: Final = "fields"


def message_of(record: logging.LogRecord) -> str:
    """Return a record's message; of a library's record the place of the call, and its template if it has one."""
    if any(record.name == name or record.name.startswith(f"{name}.") for name in _TRUSTED):
        try:
            return record.getMessage()
        except Exception:  # the arguments do not fit; `logging` would print them
            return str(record.msg)
    place = f"{record.filename}:{record.lineno}"
    # Without arguments the template is the finished message, which may quote anything.
    return f"{record.msg} [values withheld, {place}]" if record.args else f"[message withheld, {place}]"


def escaped(text: str) -> str:
    """Escape what is not printable, line ends and terminal sequences among it, and lone surrogates."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class TextFormatter(logging.Formatter):
    """`time level logger: message [request_id=... job_id=...]`, then the lines of an exception, indented."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        ids = {"request_id": request_id(), "job_id": job_id()}
        known = " ".join(f"{name}={value}" for name, value in ids.items() if value)
        head = f"{self.formatTime(record)} {record.levelname} {record.name}: {escaped(message_of(record))}"
        lines = [f"{head} [{known}]" if known else head]
        return "\n    ".join(lines + [escaped(line) for line in _exception(record)])


class JsonFormatter(logging.Formatter):
    """One JSON object a line, in ASCII: `time` (UTC), `level`, `logger`, `message`, ids, fields, `exception`."""

    def __init__(self, process: Mapping[str, str | int]) -> None:
        """Take the members that every line has, such as the node and the process."""
        super().__init__()
        self._process = dict(process)

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a JSON object."""
        seconds, milliseconds = divmod(round(record.created * 1000), 1000)
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{milliseconds:03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message_of(record),
            **self._process,
        }
        line |= {name: value for name, value in (("request_id", request_id()), ("job_id", job_id())) if value}
        line |= getattr(record, FIELDS, {})
        if lines := _exception(record):
            line["exception"] = "\n".join(lines)
        return json.dumps(line)


def _exception(record: logging.LogRecord) -> list[str]:
    error = record.exc_info[1] if record.exc_info else None
    return error_lines(error, with_text=getattr(record, "shows_error_text", False)) if error is not None else []

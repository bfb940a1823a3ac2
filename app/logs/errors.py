"""Exceptions as lines of the log: types and places, without their texts, which may quote what users wrote.

A validator's error quotes its input, a `KeyError` its key, an `OSError` a file's name. So an exception's own words are
left out, except for those of a few kinds that never quote. Imports nothing of the application; any thread.
"""

import os
import re
import sqlite3
import traceback
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Final

# As `extra` of a call of a logger: the exception's text may be shown, since no request and no job is involved.
WITH_TEXT: Final[Mapping[str, Any]] = {"shows_error_text": True}

MAX_FRAMES = 40
MAX_CHAIN = 8
_WORDS_LENGTH = 500
_FRAME = re.compile(r'\s+File ".*", line \d+')
_TYPE = re.compile(r"([A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit|Warning|Killed))\b")


def error_lines(error: BaseException, *, with_text: bool = False) -> list[str]:
    """Return an exception with its causes, outermost last, as Python prints it but for the texts.

    Args:
        error: The exception.
        with_text: Whether the texts are shown.
    """
    lines: list[str] = []
    for link, joint in reversed(list(_chain(error))):
        lines += [line for part in _frames(link.__traceback__) for line in part.rstrip("\n").split("\n")]
        lines.append(_headline(link, with_text=with_text))
        if isinstance(link, BaseExceptionGroup):
            lines += [f"  | {line}" for each in link.exceptions[:MAX_CHAIN] for line in error_lines(each)]
        if joint:
            lines += ["", joint, ""]
    return lines


def without_texts(output: str) -> str:
    """Return what another process printed as it ended, reduced to places in the code and the types of exceptions."""
    kept = [line if _FRAME.match(line) else _TYPE.match(line) for line in output.splitlines()]
    return " < ".join(line.strip() if isinstance(line, str) else line[1] for line in reversed(kept) if line)


def _chain(error: BaseException) -> Iterator[tuple[BaseException, str]]:
    """Yield the exception and those behind it, each with the line that leads from it to the one in front of it."""
    link: BaseException | None = error
    joint = ""
    seen: set[int] = set()
    while link is not None and id(link) not in seen and len(seen) < MAX_CHAIN:
        seen.add(id(link))
        yield link, joint
        if link.__cause__ is not None:
            link, joint = link.__cause__, "The exception above was the direct cause of this one:"
        else:
            link = None if link.__suppress_context__ else link.__context__
            joint = "While the exception above was handled, this one occurred:"


def _frames(trace: TracebackType | None) -> list[str]:
    if trace is None:
        return []
    return ["Traceback (most recent call last):", *traceback.StackSummary.extract(_walk(trace)).format()]


def _walk(trace: TracebackType) -> list[tuple[Any, int]]:
    return list(traceback.walk_tb(trace))[-MAX_FRAMES:]


def _headline(error: BaseException, *, with_text: bool) -> str:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    words = _text(error) if with_text else _safe_words(error)
    return f"{name}: {words[:_WORDS_LENGTH]}" if words else f"{name} (text withheld)"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return ""


def _safe_words(error: BaseException) -> str:
    """Return what of an exception's words quotes nobody; empty if nothing does."""
    module = type(error).__module__.partition(".")[0]
    if isinstance(error, OSError):
        return f"[Errno {error.errno}] {os.strerror(error.errno)}" if error.errno else ""
    if isinstance(error, sqlite3.Error):
        return _text(error).partition(" with text ")[0]  # "Could not decode to UTF-8 column ... with text ..."
    if module == "psycopg":  # `app.db.redaction` has removed the values
        return _text(error)
    if module == "torch":  # sizes and devices
        return _text(error)
    code = getattr(error, "code", None)  # of an `AppError`
    return code if module == "app" and isinstance(code, str) else ""

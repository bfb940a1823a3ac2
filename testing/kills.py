"""Ends a process of the crash tests at a chosen moment, by a SIGKILL that it sends to itself.

The application contains no code for it: SQLAlchemy's events, Python's audit events and ASGI messages are observed. Runs
in the process that is killed.
"""

import os
import signal
import sys
import threading
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from sqlalchemy import Engine, Pool, event
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# The signature of a PNG, written as the first part of an incomplete file.
HALF_A_FILE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Kill:
    """A moment of a process: the `nth` event of this kind whose description contains all these words.

    Attributes:
        moment: `statement`: before an SQL statement; `commit`: before a transaction that had such a statement
            commits; `committed`: after it has; `write`: when the first bytes of a file are written; `rename`,
            `remove`: before it happens to a path; `receive`, `send`: before a message of ASGI is taken or sent.
        words: Parts of the statement with its parameters, of the path or paths, or of the request's path and the
            message.
        nth: Counted from 1.
    """

    moment: Literal["statement", "commit", "committed", "write", "rename", "remove", "receive", "send"]
    words: tuple[str, ...]
    nth: int = 1


class _Trigger:
    """Counts the events that match a `Kill`; any thread may report one."""

    def __init__(self, kill: Kill) -> None:
        self._kill = kill
        self._left = kill.nth
        self._lock = threading.Lock()

    def fits(self, event_text: str) -> bool:
        return all(word in event_text for word in self._kill.words)

    def pull(self) -> bool:
        """Count one event; return whether it is the `nth`."""
        with self._lock:
            self._left -= 1
            return self._left == 0


def die() -> NoReturn:
    """Kill this process, as the kernel does when memory is exhausted."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a process survived SIGKILL")


def arm(kill: Kill | None) -> None:
    """Kill this process at a moment of its database or its files; `DeadlyMessages` does so for ASGI messages."""
    if kill is None or kill.moment in ("receive", "send"):
        return
    trigger = _Trigger(kill)
    if kill.moment in ("statement", "commit", "committed"):
        _watch_database(kill, trigger)
    else:
        _watch_files(kill, trigger)


def _watch_database(kill: Kill, trigger: _Trigger) -> None:
    """Watch every database engine of this process, the job engine's too; matches are recorded at the connection."""

    @event.listens_for(Engine, "before_cursor_execute")
    def on_statement(conn: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        if not trigger.fits(f"{statement} {parameters!r}"):
            return
        if kill.moment == "statement" and trigger.pull():
            die()
        conn.info["said"] = True

    @event.listens_for(Engine, "rollback")
    def on_rollback(conn: Any) -> None:
        conn.info["said"] = False

    @event.listens_for(Engine, "commit")
    def on_commit(conn: Any) -> None:
        if conn.info.pop("said", False) and trigger.pull():
            if kill.moment == "commit":
                die()
            conn.info["dies"] = True

    @event.listens_for(Pool, "checkin")
    def on_checkin(_connection: Any, record: Any) -> None:
        if record.info.get("dies"):
            die()


def _watch_files(kill: Kill, trigger: _Trigger) -> None:
    names = {"write": "open", "rename": "os.rename", "remove": "os.remove"}

    def on_event(name: str, args: tuple[Any, ...]) -> None:
        if name != names[kill.moment]:
            return
        if kill.moment != "write":
            if trigger.fits(" ".join(map(str, args[:2]))) and trigger.pull():
                die()
        elif isinstance(args[0], int) and trigger.fits(os.readlink(f"/proc/self/fd/{args[0]}")) and trigger.pull():
            os.write(args[0], HALF_A_FILE)
            die()

    sys.addaudithook(on_event)


class DeadlyMessages:
    """An ASGI middleware that kills the process at the message of a `Kill`; without one it does nothing."""

    def __init__(self, app: ASGIApp, kill: Kill | None) -> None:
        self._app = app
        self._kill = kill if kill is not None and kill.moment in ("receive", "send") else None
        self._trigger = _Trigger(kill) if kill is not None else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._kill is None or self._trigger is None or scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        moment, trigger = self._kill.moment, self._trigger
        where = f"{scope['method']} {scope['path']}"

        def look(now: str, message: Message) -> None:
            if moment == now and trigger.fits(f"{where} {message}") and trigger.pull():
                die()

        async def receive_or_die() -> Message:
            message = await receive()
            look("receive", message)
            return message

        async def send_or_die(message: Message) -> None:
            look("send", message)
            await send(message)

        await self._app(scope, receive_or_die, send_or_die)

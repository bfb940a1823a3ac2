"""The Unix socket between a node's worker and its engine; one process at a time serves the socket of a run folder.

Imports only the standard library. The kernel releases the lock when its process ends, but the socket file remains, so
the next process that holds the lock removes it. Used on the main thread of the API process at start and stop.
"""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

LOCK = "engine.lock"

_CONNECT_S = 1.0


class RunDirInUse(Exception):
    """Another process serves the socket of this run folder."""

    def __init__(self, folder: Path, owner: str) -> None:
        super().__init__(
            f"The run folder {folder} is in use by another Foxhound node ({owner}). "
            "Stop that one, or give this one its own FOXHOUND_RUN_DIR."
        )


class EngineSocket:
    """The engine socket of this process."""

    def __init__(self, path: Path) -> None:
        """Describe the socket; nothing is opened yet."""
        self.path = path
        self._identity: tuple[int, int] | None = None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the run folder during the block; the folder is created if it does not exist.

        Raises:
            RunDirInUse: Another process holds the lock, or serves the socket.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.path.parent / LOCK).open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunDirInUse(self.path.parent, _owner(file)) from None
            if _answers(self.path):  # a process of a release that takes no lock
                raise RunDirInUse(self.path.parent, "of an older release")
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield

    @contextmanager
    def bound(self) -> Iterator[socket.socket]:
        """Bind the socket with access for this user only, within `locked`; at the end only an own socket is removed."""
        self.path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            previous = os.umask(0o177)
            try:
                sock.bind(str(self.path))
            finally:
                os.umask(previous)
            self._identity = _identity(self.path)
            try:
                yield sock
            finally:
                if self.is_own():
                    self.path.unlink(missing_ok=True)

    def is_own(self) -> bool:
        """Return whether the path still is this process's socket: it was neither removed nor replaced."""
        return self._identity is not None and _identity(self.path) == self._identity


def check_run_dir(path: Path) -> None:
    """Raise unless a process may serve the socket at this path now.

    Raises:
        RunDirInUse: Another process serves it.
    """
    with EngineSocket(path).locked():
        pass


def _identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode of a file, None if it does not exist; the inode of a bound socket is not reused."""
    with suppress(OSError):
        status = path.lstat()
        return status.st_dev, status.st_ino
    return None


def _owner(file: IO[str]) -> str:
    file.seek(0)
    return f"process {file.read().strip() or 'unknown'}"


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_CONNECT_S)
        try:
            sock.connect(str(path))
        except OSError:
            return False
    return True

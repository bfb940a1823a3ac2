"""What goes wrong around a node in tests: a database that is away, storage that is full or refuses."""

import resource
import shutil
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy.engine import make_url

from app.db.session import sqlite_path

# Where nobody, root included, can make a file.
READ_ONLY = Path("/sys")

# Less than an image, enough for a log.
_ROOM_BYTES = 2_000


class Proxy:
    """A way to a Postgres server that can be cut: connections drop, and new ones are refused.

    Attributes:
        url: The database's URL by this way.
    """

    def __init__(self, url: str) -> None:
        """Open a way to the database of `url`."""
        parsed = make_url(url)
        self._server = f"{parsed.query['host']}/.s.PGSQL.{parsed.port or 5432}"
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listener = self._listen(0)
        self._port: int = self._listener.getsockname()[1]
        here = parsed.set(host="127.0.0.1", port=self._port, query={})
        self.url = here.render_as_string(hide_password=False)

    def cut(self) -> None:
        """Drop every connection and refuse new ones."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for pair in self._pairs:
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        self._pairs.clear()

    def mend(self) -> None:
        """Let connections through again."""
        self._listener = self._listen(self._port)

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                far.connect(self._server)
                self._pairs.append((near, far))
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=_pump, args=(source, target), daemon=True).start()


@contextmanager
def proxied(url: str) -> Iterator[Proxy]:
    """Open a way to a Postgres database for the length of the block."""
    proxy = Proxy(url)
    yield proxy
    proxy.cut()


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Keep a SQLite database locked for everybody else."""
    path = sqlite_path(url)
    assert path is not None
    connection = sqlite3.connect(path, isolation_level=None, timeout=30)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


@contextmanager
def full_for(pid: int) -> Iterator[None]:
    """Let a process write no file beyond its first bytes, as on a disk without room."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (_ROOM_BYTES, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@contextmanager
def read_only(data_dir: Path) -> Iterator[None]:
    """Let nothing be written to a data folder: what every file is first written to becomes a place that refuses."""
    temporaries = data_dir / ".tmp"
    shutil.rmtree(temporaries, ignore_errors=True)
    temporaries.symlink_to(READ_ONLY)
    try:
        yield
    finally:
        temporaries.unlink()  # who waited to write makes the folder anew, at once


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
    with suppress(OSError):
        source.close()

"""Outages for tests: a database that cannot be reached, storage that is full or read-only."""

import resource
import shutil
import socket
import sqlite3
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy.engine import make_url

from app.db.session import sqlite_path

# Nobody, root included, can create a file here.
READ_ONLY = Path("/sys")

# Smaller than an image, large enough for a log.
_ROOM_BYTES = 2_000


class Proxy:
    """A TCP proxy in front of a Postgres server, which can fail in several ways.

    Attributes:
        url: The database's URL through the proxy.
        port: The port on which it listens.
    """

    def __init__(self, url: str, host: str = "127.0.0.1") -> None:
        """Listen on an address of this machine, and forward to the database of `url`."""
        parsed = make_url(url)
        self._user, self._database = parsed.username, parsed.database
        self._server = f"{parsed.query['host']}/.s.PGSQL.{parsed.port or 5432}"
        self._host = host
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._flows = threading.Event()
        self._flows.set()
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]
        self.url = self.url_by(host)

    def url_by(self, host: str) -> str:
        """Return the database's URL through the proxy, with a host name of this machine."""
        return (
            make_url("postgresql://")
            .set(host=host, port=self.port, username=self._user, database=self._database)
            .render_as_string(hide_password=False)
        )

    def cut(self) -> None:
        """Close every connection and refuse new ones."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()

    def drop(self, *, rudely: bool = False) -> None:
        """Close every connection; `rudely` by a reset."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with suppress(OSError):
                    if rudely:  # a socket that a thread reads is closed only when that thread wakes
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        end.shutdown(socket.SHUT_RD)
                        end.close()
                    else:
                        end.shutdown(socket.SHUT_RDWR)

    def stall(self) -> None:
        """Accept connections and data, and forward nothing."""
        self._flows.clear()

    def flow(self) -> None:
        """Forward again."""
        self._flows.set()

    def mend(self) -> None:
        """Accept connections again after `cut`."""
        self._listener = self._listen(self.port)

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server((self._host, port))
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                try:
                    far.connect(self._server)
                except OSError:  # the server does not answer
                    near.close()
                    continue
                self._pairs.append((near, far))
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=_pump, args=(source, target, self._flows), daemon=True).start()


@contextmanager
def proxied(url: str, host: str = "127.0.0.1") -> Iterator[Proxy]:
    """Run a proxy in front of a Postgres database for the duration of the block."""
    proxy = Proxy(url, host)
    yield proxy
    proxy.flow()
    proxy.cut()


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Hold an exclusive lock on a SQLite database."""
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
    """Let every write of a process fail after the first bytes of a file, as on a full disk."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (_ROOM_BYTES, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@contextmanager
def read_only(data_dir: Path) -> Iterator[None]:
    """Let every write to a data folder fail: its folder of temporary files becomes a link to a read-only one."""
    temporaries = data_dir / ".tmp"
    shutil.rmtree(temporaries, ignore_errors=True)
    temporaries.symlink_to(READ_ONLY)
    try:
        yield
    finally:
        temporaries.unlink()  # the next writer creates the folder again


def _pump(source: socket.socket, target: socket.socket, flows: threading.Event) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            flows.wait()
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
    with suppress(OSError):
        source.close()

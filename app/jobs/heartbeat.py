"""A worker's row in the database, and its heartbeats, by which other workers see that it is alive.

Runs on a thread of its own, which waits for nothing but the row: the reaper's thread may be busy with the job engine.
"""

import logging
import os
import socket
import threading
from pathlib import Path

from sqlalchemy import Select, select, update

from app.db.base import utc_now
from app.db.models import Worker
from app.db.session import Database

logger = logging.getLogger(__name__)


class Heartbeat:
    """One worker's row: written before the worker claims work and renewed while it runs; a `Reaper` removes it.

    Attributes:
        lost: Set when another worker has taken this worker's work over; the process has to end.
    """

    def __init__(self, db: Database, *, worker_id: str, host: str, ttl_s: float) -> None:
        """Describe a worker; nothing is written yet.

        Args:
            db: The database of the workers' rows.
            worker_id: Never used twice.
            host: Names the scope in which a pid identifies a process.
            ttl_s: Time without a heartbeat after which a worker counts as dead, in seconds, > 0; it has four of them.
        """
        self.worker_id = worker_id
        self.host = host
        self.ttl_s = ttl_s
        self.lost = threading.Event()
        self._db = db

    def register(self) -> None:
        """Write the row."""
        with self._db.transaction() as session:
            session.add(Worker(id=self.worker_id, host=self.host, pid=os.getpid()))

    def keep(self, stop: threading.Event) -> None:
        """Beat until `stop` is set or the row is lost."""
        while not self.lost.is_set():
            try:
                self.beat()
            except Exception:
                logger.exception("The heartbeat failed. The next one follows in %.1f s.", self.ttl_s / 4)
            if stop.wait(self.ttl_s / 4):
                return

    def beat(self) -> None:
        """Renew the row; set `lost` if another worker has taken it over."""
        mine = own_row(self.worker_id, self.host).whereclause
        assert mine is not None
        with self._db.transaction() as session:
            beat = update(Worker).where(mine).values(beat_at=utc_now()).returning(Worker.id)
            is_mine = session.execute(beat).first() is not None
        if not is_mine:
            logger.warning("Another worker has taken over the work of this one, which counted as dead. It ends.")
            self.lost.set()


def own_row(worker_id: str, host: str) -> Select[str]:
    """Select a worker's id as long as its row names this process: until another worker has taken it over."""
    return select(Worker.id).where(Worker.id == worker_id, Worker.host == host, Worker.pid == os.getpid())


def host_name() -> str:
    """Name the scope in which a pid identifies a process: machine, this boot of it, and container."""
    parts = [socket.gethostname()]
    boot_id = Path("/proc/sys/kernel/random/boot_id")
    if boot_id.exists():
        parts += [boot_id.read_text().strip()[:8], str(Path("/proc/self/ns/pid").stat().st_ino)]
    return "/".join(parts)

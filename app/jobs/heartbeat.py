"""A worker's row in the database, and its beats: how the others know that it lives.

On a thread of its own, which waits for nothing but the row: a reaper may have much to ask the job engine.
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
    """One worker's row: written before it claims anything and renewed while it lives; a `Reaper` removes it.

    Attributes:
        lost: Set when another worker has taken this one for dead; the process has to end.
    """

    def __init__(self, db: Database, *, worker_id: str, host: str, ttl_s: float) -> None:
        """Describe a worker; nothing is written yet.

        Args:
            db: Where the workers' rows are.
            worker_id: Never the same twice.
            host: Where a pid means the same process.
            ttl_s: Silence after which a worker counts as dead, in seconds, > 0; there are four beats in it.
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
        """Beat until told to stop or lost."""
        while not self.lost.is_set():
            try:
                self.beat()
            except Exception:
                logger.exception("The heartbeat failed; it goes on.")
            if stop.wait(self.ttl_s / 4):
                return

    def beat(self) -> None:
        """Renew the row, or learn that it is another worker's now."""
        mine = own_row(self.worker_id, self.host).whereclause
        assert mine is not None
        with self._db.transaction() as session:
            beat = update(Worker).where(mine).values(beat_at=utc_now()).returning(Worker.id)
            is_mine = session.execute(beat).first() is not None
        if not is_mine:
            logger.warning("This worker was taken for dead and ends.")
            self.lost.set()


def own_row(worker_id: str, host: str) -> Select[str]:
    """Select a worker's id as long as this process answers for it: until another worker has taken it over."""
    return select(Worker.id).where(Worker.id == worker_id, Worker.host == host, Worker.pid == os.getpid())


def host_name() -> str:
    """Name the place where a pid means the same process: machine, this boot of it, and container."""
    parts = [socket.gethostname()]
    boot_id = Path("/proc/sys/kernel/random/boot_id")
    if boot_id.exists():
        parts += [boot_id.read_text().strip()[:8], str(Path("/proc/self/ns/pid").stat().st_ino)]
    return "/".join(parts)

"""Room kept free on a node's disks, so that what makes room always can: a deletion needs some itself, for its journal.

Nothing new is written where less is free. Should something else fill the disk all the same, a file of some megabytes
that was written beforehand is given up for the next deletion, and written again once there is room. Knows no records.
Any thread and any number of processes may use the same folders; each process measures at most once a second.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from app.db.session import sqlite_path
from app.errors import StorageFull
from app.storage.files import FILE_MODE

logger = logging.getLogger(__name__)

Done = TypeVar("Done")

BALLAST = ".reserve"
_MEASURED_FOR_S = 1.0
_MEGABYTE = 2**20
# Of what is kept free, beside it: for the deletion of some ten thousand images from a SQLite database.
_BALLAST_SHARE = 8
_MAX_BALLAST_BYTES = 32 * _MEGABYTE


class Reserve:
    """What is kept free in some folders; made once a process."""

    def __init__(self, folders: Sequence[Path] = (), num_bytes: int = 0) -> None:
        """Describe a reserve; nothing is measured or written yet.

        Args:
            folders: Where the node writes; on one filesystem or on several.
            num_bytes: What is kept free in each, >= 0; 0 keeps nothing.
        """
        self._folders = tuple(dict.fromkeys(folder.resolve() for folder in folders))
        self._num_bytes = num_bytes
        self._ballast_bytes = min(num_bytes // _BALLAST_SHARE, _MAX_BALLAST_BYTES)
        self._measured_at = -float("inf")
        self._is_short = False

    def check(self) -> None:
        """Return if there is more room than is kept free: microseconds, but for one call a second.

        Raises:
            StorageFull: There is less.
        """
        if self._num_bytes and time.monotonic() - self._measured_at >= _MEASURED_FOR_S:
            self._measure()
        if self._is_short:
            raise StorageFull("The disk is nearly full. Delete something, or make room on it, and try again.")

    def spend(self, work: Callable[[], Done]) -> Done:
        """Do what makes room; where it finds none even for itself, give up the ballast and do it again.

        Raises:
            StorageFull: That was not enough.
        """
        try:
            return work()
        except StorageFull:
            if not self._give_up_ballast():
                raise
        logger.warning("The disk is full; what was reserved for deletions is given up for one.")
        return work()

    def _measure(self) -> None:
        self._measured_at = time.monotonic()
        was_short, self._is_short = self._is_short, any(self._lacks(folder) for folder in self._folders)
        if self._is_short and not was_short:
            logger.warning("Less than %d MB are free: no new work is taken.", self._num_bytes // _MEGABYTE)
        elif was_short and not self._is_short:
            logger.warning("There is room again: new work is taken.")

    def _lacks(self, folder: Path) -> bool:
        """Tell whether a folder has less room than is kept free; where there is enough, see that the ballast is there.

        A folder that is not there yet, or no more, lacks nothing: who writes to it will be told why it cannot be.
        """
        ballast = folder / BALLAST
        try:
            status = os.statvfs(folder)
            num_free = status.f_bavail * status.f_frsize
            if num_free >= self._num_bytes + self._ballast_bytes and _size_of(ballast) < self._ballast_bytes:
                _allocate(ballast, self._ballast_bytes)
        except OSError:
            return False
        return num_free < self._num_bytes

    def _give_up_ballast(self) -> bool:
        num_given_up = 0
        for folder in self._folders:
            try:
                (folder / BALLAST).unlink()
            except OSError:  # not there, or not to be removed
                continue
            num_given_up += 1
        return num_given_up > 0


NO_RESERVE = Reserve()


def reserve_of(data_dir: Path, database_url: str, megabytes: int) -> Reserve:
    """Return the reserve of a node: in its data folder, and where the file of its SQLite database lies."""
    path = sqlite_path(database_url)
    folders = [data_dir] if path is None else [data_dir, path.parent]
    return Reserve(folders, megabytes * _MEGABYTE)


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _allocate(path: Path, num_bytes: int) -> None:
    """Write a file of so many bytes that takes their room; one of which a part is there is made longer."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, FILE_MODE)
    try:
        os.posix_fallocate(descriptor, 0, num_bytes)
    finally:
        os.close(descriptor)

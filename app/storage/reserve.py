"""Space kept free on a node's disks for deletions, which need some themselves, for the database's journal.

New files are refused while less is free. If another program fills the disk anyway, a preallocated file of some MB
(the ballast) is removed for the next deletion, and written again once there is room. Imports no database models. Any
number of threads and processes may use the same folders; each process measures at most once a second.
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
# The ballast is 1/8 of the reserve, in addition to it: enough to delete about 10,000 images from a SQLite database.
_BALLAST_SHARE = 8
_MAX_BALLAST_BYTES = 32 * _MEGABYTE


class Reserve:
    """The reserve of some folders; one object for each process."""

    def __init__(self, folders: Sequence[Path] = (), num_bytes: int = 0) -> None:
        """Describe a reserve; nothing is measured or written yet.

        Args:
            folders: Folders in which the node writes, on one or several filesystems.
            num_bytes: Bytes kept free in each, >= 0; 0 disables the reserve.
        """
        self._folders = tuple(dict.fromkeys(folder.resolve() for folder in folders))
        self._num_bytes = num_bytes
        self._ballast_bytes = min(num_bytes // _BALLAST_SHARE, _MAX_BALLAST_BYTES)
        self._measured_at = -float("inf")
        self._is_short = False

    @property
    def num_bytes(self) -> int:
        """The bytes that are kept free in each folder."""
        return self._num_bytes

    def check(self) -> None:
        """Raise unless more space is free than the reserve; takes microseconds, except for one call a second.

        Raises:
            StorageFull: Less space is free.
        """
        if self._num_bytes and time.monotonic() - self._measured_at >= _MEASURED_FOR_S:
            self._measure()
        if self._is_short:
            raise StorageFull("The disk is nearly full. Delete datasets or models, or free disk space. Then try again.")

    def spend(self, work: Callable[[], Done]) -> Done:
        """Call a function that frees space; if it fails with `StorageFull`, remove the ballast and call it again.

        Args:
            work: The function; it may be called twice.

        Raises:
            StorageFull: There is no ballast, or the second call failed too.
        """
        try:
            return work()
        except StorageFull:
            if not self._give_up_ballast():
                raise
        logger.warning("The disk is full. The file reserved for deletions was removed to make room for one.")
        return work()

    def _measure(self) -> None:
        self._measured_at = time.monotonic()
        was_short, self._is_short = self._is_short, any(self._lacks(folder) for folder in self._folders)
        if self._is_short and not was_short:
            logger.warning("Less than %d MB are free. New work is refused.", self._num_bytes // _MEGABYTE)
        elif was_short and not self._is_short:
            logger.warning("There is enough disk space again. New work is accepted.")

    def _lacks(self, folder: Path) -> bool:
        """Return whether a folder has less free space than the reserve; if there is enough, write a missing ballast.

        A folder that cannot be measured does not count as full; writing to it raises the actual error.
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
            except OSError:  # missing, or not removable
                continue
            num_given_up += 1
        return num_given_up > 0


NO_RESERVE = Reserve()


def reserve_of(data_dir: Path, database_url: str, megabytes: int) -> Reserve:
    """Return the reserve of a node: in its data folder and in the folder of its SQLite database."""
    path = sqlite_path(database_url)
    folders = [data_dir] if path is None else [data_dir, path.parent]
    return Reserve(folders, megabytes * _MEGABYTE)


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _allocate(path: Path, num_bytes: int) -> None:
    """Allocate a file of `num_bytes` on disk; a shorter one is extended."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, FILE_MODE)
    try:
        os.posix_fallocate(descriptor, 0, num_bytes)
    finally:
        os.close(descriptor)

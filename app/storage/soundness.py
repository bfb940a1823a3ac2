"""Whether a stored file is what its record says: there, of its size, and of its hash. Knows no records.

The size is looked at each time. A hash is computed once for each version of a file, which the file system tells by
inode, size and times; a disk that changes bytes without a write is found at the next start. Any thread.
"""

import hashlib
import os
import threading
import time
from collections import OrderedDict
from typing import BinaryIO, Literal

from app.errors import NotFound
from app.storage.layout import DataFolder

Fault = Literal["missing", "damaged"]

# Versions known to be sound; some 200 bytes each.
_MAX_KNOWN = 65_536
# A write within the file system's clock tick after a look leaves the times as they were.
_SETTLED_AFTER_S = 2.0
_BLOCK_BYTES = 256 * 1024


class LostFile(Exception):
    """A file is not what its record says; whoever knows what it is for says it to clients."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault


class FileChecks:
    """Looks at files of a data folder, and remembers which versions are sound."""

    def __init__(self, folder: DataFolder) -> None:
        """Begin knowing nothing."""
        self._folder = folder
        self._known: OrderedDict[tuple[object, ...], None] = OrderedDict()
        self._lock = threading.Lock()

    def fault(self, path: str, *, num_bytes: int, sha256: str, is_hashed: bool = True) -> Fault | None:
        """Return what is wrong with a file, None if nothing is.

        Args:
            path: Relative to the data folder.
            num_bytes: Its size by its record.
            sha256: The hash of its content by its record, hexadecimal.
            is_hashed: Whether its content counts, or its size alone.

        Raises:
            Unavailable: The storage cannot be read.
        """
        try:
            with self._folder.open(path) as file:
                status = os.fstat(file.fileno())
                if status.st_size != num_bytes:
                    return "damaged"
                version = _version(path, sha256, status)
                if not is_hashed or self._is_known(version):
                    return None
                if _digest(file) != sha256:
                    return "damaged"
        except NotFound:
            return "missing"
        if time.time() - max(status.st_mtime, status.st_ctime) > _SETTLED_AFTER_S:
            self._remember(version)
        return None

    def read(self, path: str, *, num_bytes: int, sha256: str) -> bytes:
        """Read a file whole; what is returned has been checked, whatever is written meanwhile.

        Raises:
            LostFile: It is missing or damaged.
            Unavailable: The storage cannot be read.
        """
        try:
            with self._folder.open(path) as file:
                data = file.read(num_bytes + 1)
        except NotFound:
            raise LostFile("missing") from None
        if len(data) != num_bytes or hashlib.sha256(data).hexdigest() != sha256:
            raise LostFile("damaged")
        return data

    def _is_known(self, version: tuple[object, ...]) -> bool:
        with self._lock:
            if version not in self._known:
                return False
            self._known.move_to_end(version)
            return True

    def _remember(self, version: tuple[object, ...]) -> None:
        with self._lock:
            self._known[version] = None
            if len(self._known) > _MAX_KNOWN:
                self._known.popitem(last=False)


def _version(path: str, sha256: str, status: os.stat_result) -> tuple[object, ...]:
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return (path, sha256, status.st_dev, status.st_ino, status.st_size, *times)


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(_BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()

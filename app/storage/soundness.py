"""Verification of stored files against size and hash.

The size is compared each time. The hash is computed once for each version of a file, which is identified by inode, size
and times; corruption that changes none of them is found after the next start. Imports no database models. Any thread.
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

# Most file versions remembered as sound; about 200 bytes each.
_MAX_KNOWN = 16_384
# A write within the same tick of the file system's clock does not change the times, so younger files are not cached.
_SETTLED_AFTER_S = 2.0
_BLOCK_BYTES = 256 * 1024


class LostFile(Exception):
    """A file is missing or damaged; the caller converts this into an error for clients."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault


class FileChecks:
    """Verifies files of a data folder, and remembers which versions are sound."""

    def __init__(self, folder: DataFolder) -> None:
        """Begin with no version remembered."""
        self._folder = folder
        self._known: OrderedDict[tuple[object, ...], None] = OrderedDict()
        self._lock = threading.Lock()

    def fault(self, path: str, *, num_bytes: int, sha256: str, is_hashed: bool = True) -> Fault | None:
        """Return whether a file is missing or damaged, None if it is sound.

        Args:
            path: Relative to the data folder.
            num_bytes: The recorded size, in bytes.
            sha256: The recorded hash of the content, hexadecimal.
            is_hashed: Whether to verify the hash, or only the size.

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
        """Read a whole file and verify the bytes read, so that a concurrent write cannot falsify the check.

        Raises:
            LostFile: The file is missing or damaged.
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

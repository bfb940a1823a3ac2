"""The bound of a cache of files on disk: what its folder holds, and the removal of the oldest files.

Any number of threads and processes may share one folder: each measures it once, counts what it adds itself, and
measures again when it evicts. Imports no database models.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from app.storage.files import TEMPORARIES, remove_file
from app.storage.inventory import files_below

# Part of the bound down to which files are evicted, so that not every file evicts one.
_KEPT_SHARE = 0.9


def exact_size(num_bytes: int) -> int:
    """Return what a file of so many bytes counts for: its size."""
    return num_bytes


def size_in_blocks(num_bytes: int) -> int:
    """Return what a file of so many bytes takes on the disk at least: whole blocks of 4 KiB."""
    return -(-num_bytes // 4_096) * 4_096


class BoundedFolder:
    """A folder whose oldest files are evicted once it holds more bytes than it may."""

    def __init__(self, root: Path, max_bytes: int, *, count: Callable[[int], int] = exact_size) -> None:
        """Bound a folder.

        Args:
            root: The folder; it may not exist. Files on their way into it, in its folder of temporaries, do not count.
            max_bytes: Largest total size of the files, each as `count` counts it.
            count: Returns what a file of so many bytes counts for: `exact_size` or `size_in_blocks`.
        """
        self._root = root
        self._max_bytes = max_bytes
        self._count = count
        self._num_bytes: int | None = None

    def add(self, num_bytes: int) -> None:
        """Count a file that was just written; beyond the bound, evict the oldest files down to 90 % of it."""
        if self._num_bytes is None:
            self._num_bytes = sum(size for _, size, _ in self._files())
        else:
            self._num_bytes += self._count(num_bytes)
        if self._num_bytes > self._max_bytes:
            self._evict()

    def _evict(self) -> None:
        files = sorted(self._files())
        num_bytes = sum(size for _, size, _ in files)
        for _, size, path in files:
            if num_bytes <= self._max_bytes * _KEPT_SHARE:
                break
            remove_file(path)
            with suppress(OSError):
                path.parent.rmdir()  # it has another file, or goes too
            num_bytes -= size
        self._num_bytes = num_bytes

    def _files(self) -> Iterator[tuple[int, int, Path]]:
        """Yield modification time in ns, counted bytes and path of every file."""
        temporaries = str(self._root / TEMPORARIES) + os.sep
        for entry in files_below(self._root):
            if entry.path.startswith(temporaries):
                continue
            with suppress(FileNotFoundError):  # evicted by another process
                status = entry.stat(follow_symlinks=False)
                yield status.st_mtime_ns, self._count(status.st_size), Path(entry.path)

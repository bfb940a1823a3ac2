"""A real filesystem of a few megabytes, for tests of full disks."""

import errno
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_BLOCK = bytes(65_536)


class SmallDisk:
    """A mounted filesystem.

    Attributes:
        root: Its mount point.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def free_bytes(self) -> int:
        """Free space, in bytes."""
        status = os.statvfs(self.root)
        return status.f_bavail * status.f_frsize

    def fill(self, leave_bytes: int = 0) -> None:
        """Fill the disk with an unrelated file until `leave_bytes` are free."""
        with self._filler.open("ab", buffering=0) as file:
            try:
                while (more := self.free_bytes - leave_bytes) > 0:
                    file.write(_BLOCK[:more])
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def make_room(self) -> None:
        """Remove the file that `fill` wrote."""
        self._filler.unlink()

    @property
    def _filler(self) -> Path:
        return self.root / "unrelated"


@contextmanager
def small_disk(megabytes: int) -> Iterator[SmallDisk]:
    """Mount a filesystem in memory for the duration of the block; skip the test where that is not permitted."""
    # Not in pytest's folder, which other users, such as a database's, may not enter.
    root = Path(tempfile.mkdtemp(prefix="foxhound-disk-"))
    root.chmod(0o755)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "foxhound-test", str(root)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True)
        if mounted.returncode:
            pytest.skip(f"NO FULL DISK IS TESTED HERE: nothing can be mounted ({mounted.stderr.strip()})")
        try:
            yield SmallDisk(root)
        finally:
            subprocess.run(["umount", "--lazy", str(root)], check=True)
    finally:
        root.rmdir()

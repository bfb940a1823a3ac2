"""A real filesystem of a few megabytes, for tests of what happens when it is full."""

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
        root: Where it is mounted.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def free_bytes(self) -> int:
        """How much room there is."""
        status = os.statvfs(self.root)
        return status.f_bavail * status.f_frsize

    def fill(self, leave_bytes: int = 0) -> None:
        """Let somebody else's file take all room but so much."""
        with self._filler.open("ab", buffering=0) as file:
            try:
                while (more := self.free_bytes - leave_bytes) > 0:
                    file.write(_BLOCK[:more])
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def make_room(self) -> None:
        """Remove that file."""
        self._filler.unlink()

    @property
    def _filler(self) -> Path:
        return self.root / "somebody-elses"


@contextmanager
def small_disk(megabytes: int) -> Iterator[SmallDisk]:
    """Mount a filesystem in memory for the length of the block; skips the test where that is not permitted."""
    # Not below pytest's own folder, which other users, as a database's, may not enter.
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

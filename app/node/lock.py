"""A file lock that allows one node for each data folder; the kernel releases it when the process ends.

Imports only the standard library. Used on the main thread of the supervisor.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class DataDirInUse(Exception):
    """Another node uses the data folder."""


@contextmanager
def lock_data_dir(data_dir: Path) -> Iterator[None]:
    """Hold the lock of a data folder during the block; the folder is created if it does not exist.

    Raises:
        DataDirInUse: Another process holds the lock.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "node.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise DataDirInUse(
                f"The data folder {data_dir} is in use by another Foxhound node (process {owner}). "
                "Stop that one, or give this one its own FOXHOUND_DATA_DIR."
            ) from None
        os.truncate(file.fileno(), 0)
        with suppress(OSError):  # a full disk: the lock is held anyway, and deletions need a running node
            os.write(file.fileno(), f"{os.getpid()}\n".encode())
        yield

"""One data folder, one node: a lock that goes with the process, however it ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class DataDirInUse(Exception):
    """Another node works in the data folder."""


@contextmanager
def lock_data_dir(data_dir: Path) -> Iterator[None]:
    """Hold the lock of a data folder, which is made if it does not exist.

    Raises:
        DataDirInUse: Another process holds it.
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
        with suppress(OSError):  # a full disk: the lock holds all the same, and what makes room needs a node
            os.write(file.fileno(), f"{os.getpid()}\n".encode())
        yield

"""The bytes that a node stores and has left, for its metrics.

Runs on a thread of the metrics: the sums read every image's row, and four folders are walked.
"""

import os

from app.db.session import Database
from app.metrics.records import read_bytes
from app.storage.inventory import files_below
from app.storage.layout import FINE_TUNING, DataFolder

# Kinds of files without a record.
_UNRECORDED = ("features", "exports", "thumbnails", FINE_TUNING)


def stored_bytes(db: Database, folder: DataFolder) -> dict[str, int]:
    """Return the bytes of each kind of file: those with a record as recorded, others as on the disk.

    Raises:
        DatabaseUnavailable: The database does not answer.
    """
    return read_bytes(db) | {kind: _size(folder, kind) for kind in _UNRECORDED}


def free_bytes(folder: DataFolder) -> int | None:
    """Return the free bytes on the data folder's disk; None where they cannot be measured."""
    try:
        status = os.statvfs(folder.root)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize


def _size(folder: DataFolder, kind: str) -> int:
    total = 0
    for entry in files_below(folder.root / kind):
        try:
            total += entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:  # removed meanwhile
            continue
    return total

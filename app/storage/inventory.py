"""What lies in a folder, walked without holding a list of it. Knows no records and follows no symlinks."""

import os
import time
from collections.abc import Iterator
from pathlib import Path


def files_below(folder: Path, *, older_than_s: float = 0.0) -> Iterator[os.DirEntry[str]]:
    """Give each regular file anywhere below a folder; what is not there, or goes meanwhile, is left out.

    Args:
        folder: Where to look.
        older_than_s: Least time since the file's last change, in seconds, >= 0.
    """
    folders = [str(folder)]
    while folders:
        try:
            entries = list(os.scandir(folders.pop()))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            elif entry.is_file(follow_symlinks=False) and _is_of_age(entry, older_than_s):
                yield entry


def paths_below(root: Path, kind: str, *, older_than_s: float = 0.0) -> Iterator[str]:
    """Give the path, relative to `root`, of each regular file below its folder `kind`; as `files_below`."""
    for entry in files_below(root / kind, older_than_s=older_than_s):
        yield os.path.relpath(entry.path, root)


def _is_of_age(entry: os.DirEntry[str], older_than_s: float) -> bool:
    try:
        return not older_than_s or time.time() - entry.stat(follow_symlinks=False).st_mtime >= older_than_s
    except FileNotFoundError:
        return False

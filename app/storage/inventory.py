"""Iteration over the files below a folder, without a list of all of them in memory; follows no symlinks.

Imports no database models. Any thread may call it; every step reads the disk.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path


def files_below(folder: Path, *, older_than_s: float = 0.0) -> Iterator[os.DirEntry[str]]:
    """Yield each regular file at any depth below a folder; a folder or file that disappears meanwhile is skipped.

    Args:
        folder: The folder; it may not exist.
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
    """Yield the path, relative to `root`, of each regular file below its folder `kind`; see `files_below`."""
    for entry in files_below(root / kind, older_than_s=older_than_s):
        yield os.path.relpath(entry.path, root)


def _is_of_age(entry: os.DirEntry[str], older_than_s: float) -> bool:
    try:
        return not older_than_s or time.time() - entry.stat(follow_symlinks=False).st_mtime >= older_than_s
    except FileNotFoundError:
        return False

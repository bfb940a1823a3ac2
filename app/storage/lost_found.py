"""Keeps files as `.lost+found/{date}/{the same relative path}` instead of deleting or overwriting them.

Whether a file has a record depends on the database, which may be the wrong one or an older copy. So files without a
record are moved, damaged ones are linked before they are replaced, and both stay on the disk until a person removes
them. Dates are in UTC. Imports no database models. Any thread may call it.
"""

import itertools
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from app.storage.files import contained_path, make_folder, place_new, storage_errors, sync_folder
from app.storage.inventory import files_below
from app.storage.layout import LOST_FOUND, DataFolder

Today = Callable[[], str]


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def move_to_lost_found(folder: DataFolder, paths: Iterable[str], *, today: Today = _today) -> int:
    """Move files to the day's folder in `.lost+found`; no file there is overwritten.

    A process that is killed meanwhile leaves a file at both paths, never at neither. A class folder is removed with its
    last file, as by `DataFolder.delete`.

    Args:
        folder: The data folder.
        paths: Relative paths; a missing file is no error.
        today: Returns the name of the day's folder.

    Returns:
        How many files were moved.

    Raises:
        StorageFull, Unavailable: The storage cannot be written.
    """
    root = folder.root / LOST_FOUND / today()
    kept: list[str] = []
    changed: set[Path] = set()
    with storage_errors():
        for path in paths:
            with suppress(FileNotFoundError):
                changed.add(_keep(folder.root / path, root / path))
                kept.append(path)
        for parent in changed:
            sync_folder(parent)
    for path in kept:
        folder.delete(path)
    return len(kept)


def move_tree_to_lost_found(folder: DataFolder, path: str, *, today: Today = _today) -> int:
    """Move a folder with its content to the day's folder in `.lost+found`, in one step.

    Returns:
        The number of files in it; 0 if there is no such folder.

    Raises:
        StorageFull, Unavailable: The storage cannot be written.
    """
    source = folder.root / path
    if not source.is_dir():
        return move_to_lost_found(folder, [path], today=today) if source.is_file() else 0
    num_files = sum(1 for _ in files_below(source))
    if not num_files:
        shutil.rmtree(source, ignore_errors=True)
        return 0
    with storage_errors():
        target = folder.root / LOST_FOUND / today() / path
        make_folder(target.parent)
        for free in _names(target):
            with suppress(FileExistsError):
                free.mkdir()  # a folder may be renamed over an empty one
                break
        os.rename(source, free)
        sync_folder(free.parent)
        sync_folder(source.parent)
    return num_files


def keep_in_lost_found(folder: DataFolder, path: str) -> None:
    """Keep what is at a path in the day's folder in `.lost+found`, before another file is written at the path.

    A file also stays where it is, so that its class folder is never empty. Anything else is moved: nothing is written
    through a link. A path without a file is no error.

    Raises:
        ValueError: The path leaves the data folder.
        StorageFull, Unavailable: The storage cannot be written.
    """
    contained_path(folder.root, str(Path(path).parent))
    source = folder.root / path
    if source.is_dir() and not source.is_symlink():
        move_tree_to_lost_found(folder, path)
        return
    with storage_errors(), suppress(FileNotFoundError):
        is_regular = stat.S_ISREG(source.lstat().st_mode)
        sync_folder(_keep(source, folder.root / LOST_FOUND / _today() / path))
        if not is_regular:
            source.unlink()


def _keep(source: Path, target: Path) -> Path:
    """Link a file into `.lost+found`, unless a process that was killed has done it; return the folder of the link."""
    source.lstat()  # raises before an unneeded folder is created
    make_folder(target.parent)
    for free in _names(target):
        if place_new(source, free) or os.path.samestat(free.lstat(), source.lstat()):
            break
    return target.parent


def _names(target: Path) -> Iterator[Path]:
    yield target
    yield from (target.with_name(f"{target.name}.{k}") for k in itertools.count(1))

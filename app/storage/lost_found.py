"""Files that no record names, moved out of the way instead of deleted: `.lost+found/{date}/{the same relative path}`.

A sweep decides by a database, and a database may be the wrong one, or an older copy of the right one. So what it takes
away stays on the disk until a person removes it. Knows no records; any thread may call it.
"""

import itertools
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from app.storage.files import make_folder, place_new, storage_errors, sync_folder
from app.storage.inventory import files_below
from app.storage.layout import LOST_FOUND, DataFolder

Today = Callable[[], str]


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def move_to_lost_found(folder: DataFolder, paths: Iterable[str], *, today: Today = _today) -> int:
    """Move files to the day's place in `.lost+found`, where nothing is ever overwritten.

    A process that is killed meanwhile leaves a file in both places, never in none. The last file of a class takes its
    folder with it, as in `DataFolder.delete`.

    Args:
        folder: The data folder.
        paths: Relative paths; one that is gone is no error.
        today: Gives the name of the day's folder.

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
    """Move a folder with all that it holds to the day's place in `.lost+found`, in one step.

    Returns:
        How many files it holds; 0 where there is no such folder.

    Raises:
        StorageFull, Unavailable: The storage cannot be written.
    """
    source = folder.root / path
    if not source.is_dir():
        return move_to_lost_found(folder, [path], today=today) if source.is_file() else 0
    num_files = sum(1 for _ in files_below(source))
    if not num_files:  # nothing that anybody could miss
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


def _keep(source: Path, target: Path) -> Path:
    """Give a file a second name in `.lost+found`; return the folder that holds it."""
    source.lstat()  # raises before a folder is made for nothing
    make_folder(target.parent)
    for free in _names(target):
        if place_new(source, free) or free.samefile(source):
            break
    return target.parent


def _names(target: Path) -> Iterator[Path]:
    yield target
    yield from (target.with_name(f"{target.name}.{k}") for k in itertools.count(1))

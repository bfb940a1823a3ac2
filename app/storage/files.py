"""Single files on disk: contained paths, atomic durable writes, leftovers. Knows nothing of what the files hold.

An unfinished file lives in a `.tmp` folder of the same filesystem, so that whatever has a final name is
complete, whenever the process or the machine dies.
"""

import errno
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from app.error_codes import ErrorCode
from app.errors import NO_ROOM_ERRNOS, StorageFull, Unavailable

TEMPORARIES = ".tmp"
FILE_MODE = 0o640
FOLDER_MODE = 0o750

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK}
# What an error says of the path and not of the storage: no such file, one of another kind, a name that cannot be one.
_OF_THE_PATH = {
    errno.ENOENT,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENOTEMPTY,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EINVAL,
    errno.ENXIO,  # a socket, or a pipe that nobody writes
    errno.EXDEV,
}


def contained_path(root: Path, *parts: str) -> Path:
    """Resolve a path below `root`, following symlinks; the one guard against leaving a folder.

    Raises:
        ValueError: The path leaves `root`, is `root` itself, or cannot be a path at all.
    """
    folder = root.resolve()
    try:
        path = folder.joinpath(*parts).resolve()
    except (OSError, RuntimeError) as error:  # a name too long, a loop of symlinks
        raise ValueError("not a usable path") from error
    if path == folder or not path.is_relative_to(folder):
        raise ValueError("the path leaves its folder")
    return path


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turn what a disk can refuse into errors of ours.

    Raises:
        StorageFull: No space, no quota, or the file is larger than allowed.
        Unavailable: Read-only, not permitted, failing, not connected, out of file handles: every error that says
            nothing of the path.
        OSError: What is, or is not, at the path.
    """
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM_ERRNOS:
            raise StorageFull from error
        if error.errno in _OF_THE_PATH:
            raise
        raise Unavailable("The storage cannot be used at the moment.", code=ErrorCode.STORAGE_UNAVAILABLE) from error


def write_atomic(path: Path, data: bytes, *, temporaries: Path | None = None) -> None:
    """Write a file so that it is either there, whole and on disk, or not there at all.

    Args:
        path: Where the file shall be; an older file there is replaced, missing folders are made.
        data: The whole content.
        temporaries: Folder on the same filesystem for the unfinished file; default: `.tmp` beside the file.

    Raises:
        StorageFull: The content does not fit; nothing is left behind.
        Unavailable: The storage cannot be written.
    """
    temporary = (temporaries or path.parent / TEMPORARIES) / f"{uuid.uuid4().hex}.part"
    with storage_errors():
        make_folder(temporary.parent)
        make_folder(path.parent)
        try:
            _write_through(temporary, data)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def place_new(source: Path, target: Path) -> bool:
    """Give a file a second name, or copy it where the filesystem knows no hard links; False if the name is taken.

    Raises:
        OSError: The folder of `target` is missing, there is no such file, or the storage cannot be written.
    """
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _copy_new(source, target)
    return True


def make_folder(path: Path) -> None:
    """Make a folder and its missing parents, on disk when this returns."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with suppress(FileExistsError):
        path.mkdir(FOLDER_MODE)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to disk; without it a rename may be lost with the power."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_file(path: Path) -> None:
    """Remove a file; one that is gone already is no error."""
    with storage_errors():
        path.unlink(missing_ok=True)


def remove_tree(path: Path, *, temporaries: Path) -> None:
    """Take a folder away in one step, then remove what it held; one that is gone already is no error."""
    with storage_errors():
        make_folder(temporaries)
        removed = temporaries / f"{uuid.uuid4().hex}.removed"
        try:
            os.rename(path, removed)
        except FileNotFoundError:
            return
        sync_folder(path.parent)
        shutil.rmtree(removed, ignore_errors=True)  # what stays is swept at the next start


def sweep_temporaries(root: Path, *, older_than_s: float = 3600.0) -> int:
    """Remove what dead processes left in `root`'s `.tmp` folder.

    Args:
        root: The folder that holds `.tmp`.
        older_than_s: Younger leftovers stay, since another node may be writing them; 0 where this is the only one.

    Returns:
        How many leftovers were removed.
    """
    num_removed = 0
    for leftover in _entries(root / TEMPORARIES):
        with suppress(FileNotFoundError):
            if time.time() - leftover.lstat().st_mtime < older_than_s:
                continue
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink()
            num_removed += 1
    return num_removed


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []


def _write_through(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, FILE_MODE)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _copy_new(source: Path, target: Path) -> bool:
    try:
        with source.open("rb") as whole, target.open("xb") as copy:
            shutil.copyfileobj(whole, copy)
            copy.flush()
            os.fsync(copy.fileno())
    except FileExistsError:
        return False
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    shutil.copystat(source, target)
    return True

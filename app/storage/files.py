"""Operations on single files: contained paths, atomic durable writes, removal, cleanup of temporary files.

An unfinished file has a name in a `.tmp` folder of the same filesystem, so that a file under its final name is always
complete, even after the process is killed or the power fails. Imports no layout and no database models. Any thread and
any process may call it; all functions block.
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
# Errors of the path, not of the storage: no such file, a file of another kind, a name that is not possible.
_OF_THE_PATH = {
    errno.ENOENT,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENOTEMPTY,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EINVAL,
    errno.ENXIO,  # a socket, or a pipe without a writer
    errno.EXDEV,
}


def contained_path(root: Path, *parts: str) -> Path:
    """Resolve a path below `root`, following symlinks. Every path from outside passes this check.

    Raises:
        ValueError: The path leaves `root`, is `root` itself, or is no possible path.
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
    """Convert the operating system's errors inside the block.

    Raises:
        StorageFull: No space, no quota, or the file is larger than allowed.
        Unavailable: Any other error that is not about the path: read-only, not permitted, failing, not connected, out
            of file handles.
        OSError: An error about the path, unchanged.
    """
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM_ERRNOS:
            raise StorageFull from error
        if error.errno in _OF_THE_PATH:
            raise
        raise Unavailable("The storage cannot be used at the moment.", code=ErrorCode.STORAGE_UNAVAILABLE) from error


def write_atomic(path: Path, data: bytes, *, temporaries: Path | None = None, is_durable: bool = True) -> None:
    """Write a file so that it either exists complete and on disk, or does not exist.

    Args:
        path: Path of the file; an older file is replaced, missing folders are created.
        data: The whole content.
        temporaries: Folder on the same filesystem for the unfinished file; None: `.tmp` in the file's folder.
        is_durable: Whether to wait until the disk has it. If not, a power failure may leave another content.

    Raises:
        StorageFull: The content does not fit; no partial file remains.
        Unavailable: The storage cannot be written.
    """
    temporary = (temporaries or path.parent / TEMPORARIES) / f"{uuid.uuid4().hex}.part"
    with storage_errors():
        make_folder(temporary.parent)
        make_folder(path.parent)
        try:
            _write_through(temporary, data, is_durable=is_durable)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if is_durable:
            sync_folder(path.parent)


def place_new(source: Path, target: Path) -> bool:
    """Hard-link a file, or copy it if the filesystem has no hard links; False if `target` exists.

    Raises:
        OSError: The folder of `target` or the file is missing, or the storage cannot be written.
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
    """Create a folder and its missing parents, durably."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with suppress(FileExistsError):
        path.mkdir(FOLDER_MODE)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to disk; without it, a power failure may undo a rename."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_file(path: Path) -> None:
    """Remove a file; a missing one is no error."""
    with storage_errors():
        path.unlink(missing_ok=True)


def remove_tree(path: Path, *, temporaries: Path) -> None:
    """Rename a folder into `temporaries` in one step, then delete its content; a missing folder is no error."""
    with storage_errors():
        make_folder(temporaries)
        removed = temporaries / f"{uuid.uuid4().hex}.removed"
        try:
            os.rename(path, removed)
        except FileNotFoundError:
            return
        sync_folder(path.parent)
        shutil.rmtree(removed, ignore_errors=True)  # the next start removes what remains


def sweep_temporaries(root: Path, *, older_than_s: float = 3600.0) -> int:
    """Remove temporary files of killed processes from `root`'s `.tmp` folder.

    Args:
        root: The folder that contains `.tmp`.
        older_than_s: Least age in seconds, >= 0; another node may be writing younger files.

    Returns:
        The number of files and folders removed.
    """
    num_removed = 0
    for path in _entries(root / TEMPORARIES):
        with suppress(FileNotFoundError):
            if time.time() - path.lstat().st_mtime < older_than_s:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
            num_removed += 1
    return num_removed


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []


def _write_through(path: Path, data: bytes, *, is_durable: bool) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, FILE_MODE)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        if is_durable:
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

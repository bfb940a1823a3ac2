"""A file is there whole or not at all, and nothing reaches outside its folder."""

import errno
import os
import resource
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.errors import AppError, StorageFull, Unavailable
from app.storage.files import contained_path, remove_file, remove_tree, storage_errors, sweep_temporaries, write_atomic


def all_files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if not path.is_dir())


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """Let the kernel refuse writes beyond a size, as a full disk does: part of the file is written before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("parts", [("a.png",), ("a", "b", "c.png"), ("a/b/../c.png",), ("...",), ("a\\..\\..\\b",)])
def test_paths_below_the_root_are_kept(tmp_path: Path, parts: tuple[str, ...]) -> None:
    assert contained_path(tmp_path, *parts).is_relative_to(tmp_path.resolve())


@pytest.mark.parametrize(
    "parts",
    [(), ("",), (".",), ("..",), ("a", "..", "..", "b"), ("/etc/passwd",), ("a/../../b",), ("a\0b",)],
)
def test_paths_that_leave_the_root_are_refused(tmp_path: Path, parts: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"path|null"):
        contained_path(tmp_path, *parts)


def test_a_sibling_that_shares_the_roots_name_is_outside(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leaves"):
        contained_path(tmp_path / "data", "../data-old/x")


def test_symlinks_are_resolved_before_the_path_is_judged(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "link").symlink_to(outside)
    (root / "inner").symlink_to(root / "a")
    (root / "loop").symlink_to(root / "loop")
    with pytest.raises(ValueError, match="leaves"):
        contained_path(root, "link", "x.png")
    with pytest.raises(ValueError, match="path"):
        contained_path(root, "loop", "x.png")
    assert contained_path(root, "inner", "x.png") == root.resolve() / "a" / "x.png"


def test_a_root_behind_a_symlink_is_a_root_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    assert contained_path(tmp_path / "data", "a.png") == (tmp_path / "disk" / "a.png").resolve()


def test_written_files_replace_older_ones_and_leave_no_temporaries(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "x.png"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert all_files(tmp_path) == [path]


def test_modes_keep_others_out(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_atomic(tmp_path / "a" / "x.png", b"one")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a" / "x.png").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o750


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    write_atomic(path, b"old")
    with largest_file(1000), pytest.raises(StorageFull):
        write_atomic(path, b"n" * 5000)
    assert path.read_bytes() == b"old"
    assert all_files(tmp_path) == [path]


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EFBIG, StorageFull),
        (errno.EROFS, Unavailable),
        (errno.EACCES, Unavailable),
        (errno.EIO, Unavailable),
        (errno.EMFILE, Unavailable),
        (errno.ESTALE, Unavailable),
        (errno.EBADMSG, Unavailable),
        (errno.ENOMEM, Unavailable),
        (errno.EREMOTEIO, Unavailable),
        (errno.EHOSTUNREACH, Unavailable),
    ],
)
def test_what_a_disk_refuses_becomes_an_error_of_ours(number: int, error: type[AppError]) -> None:
    with pytest.raises(error) as caught, storage_errors():
        raise OSError(number, "secret text", "/secret/path")
    assert "secret" not in caught.value.detail


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO])
def test_what_an_error_says_of_the_path_stays_as_it_is(number: int) -> None:
    with pytest.raises(OSError, match="text"), storage_errors():
        raise OSError(number, "text")


def test_a_write_that_cannot_be_renamed_removes_its_temporary(tmp_path: Path) -> None:
    (tmp_path / "x.png" / "taken").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        write_atomic(tmp_path / "x.png", b"one")
    assert all_files(tmp_path) == []


def test_readers_never_see_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    contents = [bytes([letter]) * 200_000 for letter in b"ab"]
    write_atomic(path, contents[0])
    seen: set[bytes] = set()
    stopped = threading.Event()

    def read() -> None:
        while not stopped.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(40):
        write_atomic(path, contents[turn % 2])
    stopped.set()
    reader.join()
    assert seen <= set(contents)
    assert seen


def test_removing_what_is_gone_is_no_error(tmp_path: Path) -> None:
    remove_file(tmp_path / "gone")
    remove_tree(tmp_path / "gone", temporaries=tmp_path / ".tmp")


def test_the_sweep_takes_old_leftovers_and_spares_young_ones(tmp_path: Path) -> None:
    leftovers = tmp_path / ".tmp"
    (leftovers / "old.removed" / "fox").mkdir(parents=True)
    (leftovers / "old.part").write_bytes(b"half")
    (leftovers / "young.part").write_bytes(b"half")
    outside = tmp_path / "kept.png"
    outside.write_bytes(b"whole")
    (leftovers / "old.link").symlink_to(outside)
    for name in ("old.removed", "old.part", "old.link"):
        os.utime(leftovers / name, (0, 0), follow_symlinks=False)

    assert sweep_temporaries(tmp_path, older_than_s=60) == 3
    assert all_files(tmp_path) == [leftovers / "young.part", outside]
    assert sweep_temporaries(tmp_path, older_than_s=0) == 1
    assert all_files(tmp_path) == [outside]
    assert sweep_temporaries(tmp_path / "nowhere") == 0

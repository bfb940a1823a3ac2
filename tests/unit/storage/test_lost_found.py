"""What `.lost+found` keeps of a file that is about to be replaced."""

import os
from pathlib import Path

import pytest

from app.storage.layout import DataFolder
from app.storage.lost_found import keep_in_lost_found

PATH = "datasets/animals/train/fox/000000-1.png"


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path)


def kept(folder: DataFolder) -> dict[str, bytes]:
    """Return the content of each file in `.lost+found` by its name."""
    return {path.name: path.read_bytes() for path in (folder.root / ".lost+found").rglob("*") if path.is_file()}


def test_a_file_is_kept_and_stays_until_it_is_replaced(folder: DataFolder) -> None:
    folder.write(PATH, b"damaged")
    keep_in_lost_found(folder, PATH)
    assert folder.read(PATH) == b"damaged"
    folder.write(PATH, b"sound")
    assert kept(folder) == {"000000-1.png": b"damaged"}


def test_what_is_kept_already_is_not_kept_twice(folder: DataFolder) -> None:
    folder.write(PATH, b"damaged")
    keep_in_lost_found(folder, PATH)
    keep_in_lost_found(folder, PATH)
    assert kept(folder) == {"000000-1.png": b"damaged"}


def test_no_kept_file_is_overwritten(folder: DataFolder) -> None:
    for content in (b"first", b"second"):
        folder.write(PATH, content)
        keep_in_lost_found(folder, PATH)
    assert kept(folder) == {"000000-1.png": b"first", "000000-1.png.1": b"second"}


def test_dangling_links_are_moved(folder: DataFolder) -> None:
    for target in ("nowhere", "elsewhere"):
        folder.write(PATH, b"")
        (folder.root / PATH).unlink()
        (folder.root / PATH).symlink_to(target)
        keep_in_lost_found(folder, PATH)
        assert not os.path.lexists(folder.root / PATH)
    links = [os.readlink(path) for path in (folder.root / ".lost+found").rglob("*") if path.is_symlink()]
    assert sorted(links) == ["elsewhere", "nowhere"]


def test_a_folder_in_the_place_of_a_file_is_moved(folder: DataFolder) -> None:
    folder.write(f"{PATH}/inside.png", b"inside")
    keep_in_lost_found(folder, PATH)
    assert not (folder.root / PATH).exists()
    assert kept(folder) == {"inside.png": b"inside"}


def test_a_missing_file_is_no_error_and_a_path_outside_is_refused(folder: DataFolder) -> None:
    keep_in_lost_found(folder, PATH)
    assert kept(folder) == {}
    with pytest.raises(ValueError, match="folder"):
        keep_in_lost_found(folder, "../outside/x.png")

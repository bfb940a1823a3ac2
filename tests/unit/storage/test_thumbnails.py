"""Small copies are never enlarged, bounded on the disk, and only served for the image that they were made from."""

import io
import os
from pathlib import Path

import pytest
from PIL import Image

from app.errors import StorageFull
from app.storage.layout import DataFolder
from app.storage.reserve import Reserve
from app.storage.thumbnails import ThumbnailCache, make_thumbnail, small_size
from testing.uploads import picture

PATH, SHA = "images/ab/x.png", "ab" * 32


class FullDisk(Reserve):
    def check(self) -> None:
        raise StorageFull


@pytest.mark.parametrize(
    ("size", "width", "expected"),
    [
        ((512, 512), 128, (128, 128)),
        ((512, 256), 128, (128, 64)),
        ((64, 64), 128, (64, 64)),
        ((100, 10_000), 64, (3, 256)),
        ((10_000, 100), 64, (64, 1)),
        ((1, 4_000), 16, (1, 64)),
    ],
)
def test_a_copy_fits_into_its_width_and_four_times_its_height(
    size: tuple[int, int], width: int, expected: tuple[int, int]
) -> None:
    assert small_size(*size, width) == expected


def test_a_copy_shows_the_image(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (320, 160), (200, 30, 40)).save(buffer, "png")
    small = Image.open(io.BytesIO(make_thumbnail(buffer.getvalue(), 80)))
    assert (small.format, small.size) == ("WEBP", (80, 40))
    red, green, blue = small.convert("RGB").getpixel((40, 20))  # type: ignore[misc]
    assert (abs(red - 200), abs(green - 30), abs(blue - 40)) < (6, 6, 6)


def test_what_was_put_comes_back_for_the_same_image_and_width_alone(tmp_path: Path) -> None:
    ThumbnailCache(tmp_path).put(PATH, SHA, 64, b"copy")
    cache = ThumbnailCache(tmp_path)
    assert cache.get(PATH, SHA, 64) == b"copy"
    assert cache.get(PATH, SHA, 128) is None
    assert cache.get(PATH, "cd" * 32, 64) is None  # another image took the place of the first
    assert cache.get("../x", SHA, 64) is None


@pytest.mark.parametrize("content", [b"", b"copy", b"x" * 100])
def test_a_damaged_copy_is_a_miss(tmp_path: Path, content: bytes) -> None:
    cache = ThumbnailCache(tmp_path)
    cache.put(PATH, SHA, 64, b"copy")
    (tmp_path / PATH / "64.webp").write_bytes(content)
    assert cache.get(PATH, SHA, 64) is None


def test_the_oldest_copies_are_evicted_with_their_folders(tmp_path: Path) -> None:
    cache = ThumbnailCache(tmp_path, max_bytes=10 * 4_096)
    for number in range(10):
        cache.put(f"images/ab/{number}.png", SHA, 64, b"copy")
        os.utime(tmp_path / f"images/ab/{number}.png" / "64.webp", (number, number))
    cache.put("images/ab/10.png", SHA, 64, b"copy")
    assert [number for number in range(11) if cache.get(f"images/ab/{number}.png", SHA, 64)] == list(range(2, 11))
    assert not (tmp_path / "images/ab/0.png").exists()


def test_a_full_disk_is_no_error(tmp_path: Path) -> None:
    cache = ThumbnailCache(tmp_path, reserve=FullDisk())
    cache.put(PATH, SHA, 64, b"copy")
    assert cache.get(PATH, SHA, 64) is None


def test_copies_are_deleted_with_their_image_and_their_dataset(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    cache = ThumbnailCache(folder.thumbnails)
    in_dataset = folder.dataset_image_path("one", "train", "fox", 1, "png")
    for path in (PATH, in_dataset):
        folder.write(path, picture(1))
        cache.put(path, SHA, 64, b"copy")
    folder.delete(PATH)
    assert (cache.get(PATH, SHA, 64), cache.get(in_dataset, SHA, 64)) == (None, b"copy")
    folder.trash_dataset("one", "1")
    folder.restore_dataset("one", "1")
    assert cache.get(in_dataset, SHA, 64) is None
    assert folder.read(in_dataset) == picture(1)
    cache.put(in_dataset, SHA, 64, b"copy")
    folder.trash_dataset("one", "1")
    folder.purge_dataset("1")
    assert not list(folder.thumbnails.rglob("*.webp"))

"""The bound of a cache's folder: the oldest files go first, and files on their way do not count."""

import os
from pathlib import Path

from app.storage.eviction import BoundedFolder, size_in_blocks
from app.storage.files import TEMPORARIES


def write(path: Path, num_bytes: int, age: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(num_bytes))
    os.utime(path, (age, age))


def left(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_the_oldest_files_go_first_with_their_folders_and_files_on_their_way_stay(tmp_path: Path) -> None:
    write(tmp_path / TEMPORARIES / "new.part", 500, 0)
    for age in range(4):
        write(tmp_path / str(age) / "file", 30, age)
    BoundedFolder(tmp_path, 100).add(30)  # 120 bytes lie there; down to 90
    assert left(tmp_path) == [f"{TEMPORARIES}/new.part", "1/file", "2/file", "3/file"]
    assert not (tmp_path / "0").exists()


def test_files_count_by_the_blocks_that_they_take(tmp_path: Path) -> None:
    bound = BoundedFolder(tmp_path, 3 * 4_096, count=size_in_blocks)
    for age in range(4):
        write(tmp_path / str(age), 1, age)
        bound.add(1)
    assert left(tmp_path) == ["2", "3"]
    assert [size_in_blocks(number) for number in (0, 1, 4_096, 4_097)] == [0, 4_096, 4_096, 8_192]

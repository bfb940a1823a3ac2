"""The data folder keeps its promises to torchvision's ImageFolder, at every moment."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import ImageFolder

from app.errors import NotFound, StorageFull
from app.storage.image_formats import encode_image
from app.storage.layout import DataFolder
from tests.unit.storage.test_files import all_files, largest_file

PNG = encode_image(np.zeros((8, 8, 3), np.uint8), "png", {})


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path / "data")


def put(folder: DataFolder, split: str, class_folder: str, position: int, dataset: str = "fox-dog") -> str:
    path = folder.dataset_image_path(dataset, split, class_folder, position, "png", seed=position + 100)
    folder.write(path, PNG)
    return path


def test_what_is_written_can_be_read_found_and_deleted(folder: DataFolder) -> None:
    for path in (folder.image_path("0195-ab", "png"), folder.model_path("0195-ab"), "features/x.npy"):
        folder.write(path, b"content")
        assert folder.read(path) == b"content"
        assert folder.locate(path) == folder.root / path
        with folder.open(path) as file:
            assert file.read(3) == b"con"
        folder.delete(path)
        folder.delete(path)
        with pytest.raises(NotFound):
            folder.read(path)
    assert all_files(folder.root) == []


def test_paths_in_records_are_relative_and_spread(folder: DataFolder) -> None:
    assert folder.image_path("0195f2-4c", "webp") == "images/4c/0195f2-4c.webp"
    assert folder.model_path("0195f2-4c") == "models/0195f2-4c/model.safetensors"
    assert folder.dataset_image_path("d", "train", "fox", 7, "png", seed=42) == "datasets/d/train/fox/000007-42.png"
    assert folder.dataset_image_path("d", "test", "fox", 7, "jpeg") == "datasets/d/test/fox/000007.jpeg"


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "images/../../x", "", "a\0b", "x" * 5000])
def test_nothing_outside_is_read_or_written(folder: DataFolder, path: str) -> None:
    with pytest.raises(NotFound):
        folder.read(path)
    with pytest.raises((ValueError, OSError)):
        folder.write(path, b"content")
    with pytest.raises((ValueError, OSError)):
        folder.delete(path)


def test_whatever_is_no_regular_file_is_not_found(folder: DataFolder, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    images = folder.root / "images"
    (images / "folder").mkdir(parents=True)
    (images / "link").symlink_to(secret)
    os.mkfifo(images / "fifo")
    for name in ("folder", "link", "fifo", "missing", "folder/x", "link/x"):
        with pytest.raises(NotFound):
            folder.open(f"images/{name}")


def test_a_full_disk_leaves_no_trace_of_a_new_class(folder: DataFolder) -> None:
    put(folder, "train", "fox", 0)
    before = sorted(folder.root.rglob("*"))
    with largest_file(100), pytest.raises(StorageFull):
        folder.write("datasets/fox-dog/train/dog/000000-1.png", bytes(5000))
    assert sorted(folder.root.rglob("*")) == before


def test_the_sweep_clears_what_a_killed_writer_left(folder: DataFolder) -> None:
    put(folder, "train", "fox", 0)
    for leftovers in (folder.root / ".tmp", folder.features / ".tmp"):
        (leftovers / "half" / "dog").mkdir(parents=True)
        (leftovers / "half" / "dog" / "x.part").write_bytes(b"half")
        (leftovers / "y.part").write_bytes(b"half")
    assert folder.sweep() == 0
    assert folder.sweep(older_than_s=0) == 4
    assert [path.name for path in all_files(folder.root)] == ["000000-100.png"]


def test_torchvision_reads_a_dataset_as_it_lies(folder: DataFolder) -> None:
    for split, count in (("train", 3), ("test", 1)):
        for class_folder in ("fox", "dog"):
            for position in range(count):
                put(folder, split, class_folder, position)
    train = ImageFolder(folder.dataset_folder("fox-dog") / "train")
    assert train.classes == ["dog", "fox"]
    assert [label for _, label in train.samples] == [0, 0, 0, 1, 1, 1]
    assert train[0][0].size == (8, 8)
    assert len(ImageFolder(folder.dataset_folder("fox-dog") / "test")) == 2


def is_still(path: Path, descriptor: int) -> bool:
    """Say whether the path leads to the open folder; not so when that one was taken away with its files."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def test_a_dataset_loads_at_every_moment_while_it_grows_and_shrinks(folder: DataFolder) -> None:
    """A reader that lists as fast as it can meets no empty class and no foreign file."""
    put(folder, "train", "always", 0)
    split = folder.dataset_folder("fox-dog") / "train"
    problems: list[str] = []
    num_looks = 0
    stopped = threading.Event()

    def look() -> None:
        nonlocal num_looks
        while not stopped.is_set():
            for class_folder in split.iterdir():
                try:
                    descriptor = os.open(class_folder, os.O_RDONLY)
                except FileNotFoundError:
                    continue  # removed since the listing above
                names = os.listdir(descriptor)
                if names and not all(name.endswith(".png") for name in names):
                    problems.append(f"{class_folder.name}: {names}")
                if not names and is_still(class_folder, descriptor):
                    problems.append(f"{class_folder.name} is empty")
                os.close(descriptor)
            num_looks += 1

    reader = threading.Thread(target=look)
    reader.start()
    for turn in range(15):
        paths = [put(folder, "train", f"class-{turn % 3}", position) for position in range(3)]
        for path in paths:
            folder.delete(path)
    stopped.set()
    reader.join()
    assert problems == []
    assert num_looks > 10
    assert len(ImageFolder(split)) == 1


def test_deleting_what_is_not_there_leaves_the_one_image_beside_it(folder: DataFolder) -> None:
    kept = put(folder, "train", "fox", 0)
    folder.delete(folder.dataset_image_path("fox-dog", "train", "fox", 1, "png", seed=7))
    assert folder.read(kept) == PNG


def test_rejected_images_lie_outside_the_dataset_and_go_with_it(folder: DataFolder) -> None:
    put(folder, "train", "fox", 0)
    rejected = folder.dataset_image_path("fox-dog", "train", "fox", 0, "png", seed=7, is_kept=False)
    folder.write(rejected, PNG)
    assert folder.locate(rejected).is_relative_to(folder.root / "rejected")
    assert rejected in folder.dataset_paths("fox-dog")
    folder.trash_dataset("fox-dog", "id")
    folder.purge_dataset("id")
    assert [path.name for path in folder.root.iterdir() if path.is_dir() and any(path.iterdir())] == []


def test_deleting_the_last_images_takes_their_folders_along(folder: DataFolder) -> None:
    fox, dog, other = put(folder, "train", "fox", 0), put(folder, "test", "dog", 0), put(folder, "train", "fox", 0, "b")
    folder.delete(fox)
    assert [path.name for path in folder.dataset_folder("fox-dog").iterdir()] == ["test"]
    folder.delete(dog)
    assert not folder.dataset_folder("fox-dog").exists()
    assert folder.read(other) == PNG


def test_writers_that_begin_a_class_together_lose_nothing(folder: DataFolder) -> None:
    barrier = threading.Barrier(8)

    def write(index: int) -> None:
        barrier.wait()
        for position in range(5):
            put(folder, ("train", "test")[index % 2], f"class-{position}", index)

    writers = [threading.Thread(target=write, args=(index,)) for index in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(ImageFolder(folder.dataset_folder("fox-dog") / "train")) == 20
    assert len(ImageFolder(folder.dataset_folder("fox-dog") / "test")) == 20
    assert list((folder.root / ".tmp").iterdir()) == []


def test_a_trashed_dataset_is_gone_and_its_neighbours_stay(folder: DataFolder) -> None:
    put(folder, "train", "fox", 0)
    other = put(folder, "train", "fox", 0, dataset="other")
    folder.trash_dataset("fox-dog", "id")
    folder.trash_dataset("fox-dog", "id")
    assert not folder.dataset_folder("fox-dog").exists()
    assert folder.trashed_datasets() == ["id"]
    folder.purge_dataset("id")
    folder.purge_dataset("id")
    assert folder.read(other) == PNG
    assert folder.trashed_datasets() == []


def test_a_trashed_dataset_can_be_restored(folder: DataFolder) -> None:
    kept = put(folder, "train", "fox", 0)
    rejected = folder.dataset_image_path("fox-dog", "train", "fox", 0, "png", seed=7, is_kept=False)
    folder.write(rejected, PNG)
    folder.trash_dataset("fox-dog", "id")
    folder.restore_dataset("fox-dog", "id")
    folder.restore_dataset("fox-dog", "id")
    assert set(folder.dataset_paths("fox-dog")) == {kept, rejected}
    assert folder.trashed_datasets() == []


@pytest.mark.parametrize("name", ["", ".", "..", "../images", "/", "other/../.."])
def test_no_name_takes_more_than_a_dataset(folder: DataFolder, name: str) -> None:
    image = folder.image_path("0195", "png")
    folder.write(image, PNG)
    with pytest.raises(ValueError, match="leaves"):
        folder.trash_dataset(name, "id")
    with pytest.raises(ValueError, match="leaves"):
        folder.purge_dataset(name)
    assert folder.read(image) == PNG

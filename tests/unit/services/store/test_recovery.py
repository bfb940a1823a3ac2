"""What no record names is moved at a node's start, and never deleted; see tests/crash for the kills."""

import logging
import os
import time
from pathlib import Path

import pytest

from app.db.base import new_id
from app.db.models import Dataset, Image, Job
from app.db.session import Database
from app.services.store.recovery import MAX_SWEPT, clear_dataset_folders, finish_deletion, move_unrecorded, sweep
from app.storage.layout import DataFolder


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path / "data")


def add_dataset(db: Database, folder: DataFolder, status: str, num_recorded: int = 1) -> tuple[str, str, str]:
    """Add a dataset of two files, of which one is recorded or none; return its id and their paths."""
    paths = [folder.dataset_image_path("fox-dog", "train", "fox", k, "png", seed=k) for k in range(2)]
    for path in paths:
        folder.write(path, path.encode())
    dataset = Dataset(
        id=new_id(), name="fox-dog", status=status, seed=0, classes=[], train_per_class=2, test_per_class=0,
        generation={},
    )  # fmt: skip
    with db.transaction() as session:
        session.add(dataset)
        session.flush()
        session.add_all(image_row(path, dataset.id) for path in paths[:num_recorded])
    return dataset.id, paths[0], paths[1]


def image_row(path: str, dataset_id: str) -> Image:
    return Image(
        id=new_id(), path=path, format="png", width=1, height=1, num_bytes=5, sha256="0" * 64, lineage={},
        dataset_id=dataset_id, split="train", class_index=0, position=0,
    )  # fmt: skip


def write_old(folder: DataFolder, path: str, age_s: float = 7_200) -> str:
    folder.write(path, path.encode())
    for entry in (folder.root / path, *(folder.root / path).relative_to(folder.root).parents):
        place = folder.root / entry
        if place != folder.root:
            os.utime(place, (time.time() - age_s,) * 2)
    return path


def moved(folder: DataFolder) -> dict[str, str]:
    """Return the content of each file in `.lost+found` by its path below the date."""
    files = [path for path in (folder.root / ".lost+found").rglob("*") if path.is_file()]
    return {str(Path(*path.relative_to(folder.root).parts[2:])): path.read_text() for path in files}


@pytest.mark.parametrize(("status", "num_left"), [("ready", 1), ("cancelled", 1), ("generating", 2), ("queued", 2)])
def test_files_without_a_row_are_moved_where_no_job_is_at_work(
    db: Database, folder: DataFolder, status: str, num_left: int
) -> None:
    _, recorded, strange = add_dataset(db, folder, status)
    assert sweep(db, folder) == 2 - num_left
    assert len(list(folder.dataset_paths("fox-dog"))) == num_left
    assert folder.read(recorded).decode() == recorded
    assert moved(folder) == ({strange: strange} if num_left == 1 else {})


def test_a_job_sets_aside_what_it_left_itself(db: Database, folder: DataFolder) -> None:
    dataset_id, recorded, strange = add_dataset(db, folder, "generating")
    assert move_unrecorded(db, folder, dataset_id) == 1
    assert move_unrecorded(db, folder, dataset_id) == 0
    assert list(folder.dataset_paths("fox-dog")) == [recorded]
    assert move_unrecorded(db, folder, "no dataset") == 0
    assert moved(folder) == {strange: strange}


@pytest.mark.parametrize("is_gone", [True, False])
def test_a_deletion_that_was_begun_is_ended_or_undone(db: Database, folder: DataFolder, is_gone: bool) -> None:
    dataset_id, recorded, strange = add_dataset(db, folder, "ready")
    folder.trash_dataset("fox-dog", dataset_id)
    if is_gone:
        with db.transaction() as session:
            session.delete(session.get_one(Dataset, dataset_id))
    finish_deletion(db, folder, dataset_id)
    finish_deletion(db, folder, dataset_id)  # may be repeated
    assert folder.trashed_datasets() == []
    assert sorted(folder.dataset_paths("fox-dog")) == ([] if is_gone else [recorded, strange])
    assert moved(folder) == {}


@pytest.mark.parametrize("age_s", [60, 7_200])
def test_a_deletion_of_which_the_database_knows_nothing_is_undone_by_nobody_and_drops_nothing(
    db: Database, folder: DataFolder, age_s: float
) -> None:
    dataset_id = new_id()
    path = write_old(folder, folder.dataset_image_path("newer", "train", "fox", 0, "png", seed=0))
    folder.trash_dataset("newer", dataset_id)
    os.utime(folder.root / ".taken" / dataset_id, (time.time() - age_s,) * 2)
    sweep(db, folder)
    is_old = age_s > 3_600
    assert folder.trashed_datasets() == ([] if is_old else [dataset_id])  # who is at it may be a node beside this one
    assert list(moved(folder).values()) == ([path] if is_old else [])


@pytest.mark.parametrize(("age_s", "kind", "is_left"), [(7_200, "", False), (60, "", True), (7_200, "generate", True)])
def test_old_images_without_a_row_are_moved_unless_a_job_may_record_them(
    db: Database, folder: DataFolder, age_s: float, kind: str, is_left: bool
) -> None:
    path = write_old(folder, folder.image_path(new_id(), "png"), age_s)
    if kind:
        with db.transaction() as session:
            session.add(Job(id=new_id(), kind=kind, status="paused", spec={}, progress_unit="images"))
    sweep(db, folder)
    assert (folder.root / path).exists() == is_left
    assert moved(folder) == ({} if is_left else {path: path})


@pytest.mark.parametrize("num_more", [0, 1])
def test_more_than_a_few_files_stay_where_they_are_whatever_their_kinds(
    db: Database, folder: DataFolder, caplog: pytest.LogCaptureFixture, num_more: int
) -> None:
    add_dataset(db, folder, "ready")  # one strange file
    write_old(folder, folder.model_path(new_id()))
    for k in range(10):
        write_old(folder, f"datasets/newer/train/fox/{k:06d}-1.png")
    for _ in range(MAX_SWEPT - 12 + num_more):
        write_old(folder, folder.image_path(new_id(), "png"))
    before = files_of(folder)
    with caplog.at_level(logging.WARNING):
        assert sweep(db, folder) == (0 if num_more else MAX_SWEPT)
    assert len(moved(folder)) == (0 if num_more else MAX_SWEPT)
    assert (files_of(folder) == before) == bool(num_more)
    assert ("foxhound storage report" in caplog.text) == bool(num_more)
    assert str(MAX_SWEPT + num_more) in caplog.text
    if num_more:
        assert sweep(db, folder, limit=None) == MAX_SWEPT + 1  # a person asked for it
        assert len(moved(folder)) == MAX_SWEPT + 1
    assert sweep(db, folder) == 0


def files_of(folder: DataFolder) -> set[Path]:
    return {path for path in folder.root.rglob("*") if path.is_file()}


def test_nothing_in_lost_found_is_overwritten(db: Database, folder: DataFolder) -> None:
    path = folder.image_path(new_id(), "png")
    for content in ("first", "second", "third"):
        write_old(folder, path)
        (folder.root / path).write_text(content)
        os.utime(folder.root / path, (0, 0))
        assert sweep(db, folder) == 1
    assert moved(folder) == {path: "first", f"{path}.1": "second", f"{path}.2": "third"}


def test_a_dataset_without_an_image_finds_its_folders_empty(db: Database, folder: DataFolder) -> None:
    dataset_id, first, second = add_dataset(db, folder, "queued", num_recorded=0)
    rejected = folder.dataset_image_path("fox-dog", "test", "fox", 0, "png", seed=3, is_kept=False)
    folder.write(rejected, rejected.encode())
    with db.transaction() as session:
        clear_dataset_folders(session, folder, session.get_one(Dataset, dataset_id))
    assert list(folder.dataset_paths("fox-dog")) == []
    assert moved(folder) == {path: path for path in (first, second, rejected)}


@pytest.mark.parametrize("uploads_alone", [True, False])
def test_a_dataset_keeps_its_own_images_and_no_others(db: Database, folder: DataFolder, uploads_alone: bool) -> None:
    dataset_id, recorded, strange = add_dataset(db, folder, "ready")
    upload = folder.dataset_image_path("fox-dog", "train", "fox", 2, "png")
    folder.write(upload, upload.encode())
    with db.transaction() as session:
        clear_dataset_folders(session, folder, session.get_one(Dataset, dataset_id), uploads_alone=uploads_alone)
    left = {recorded, strange} if uploads_alone else {recorded}
    assert set(folder.dataset_paths("fox-dog")) == left
    assert moved(folder) == {path: path for path in {recorded, strange, upload} - left}


def test_links_and_strange_entries_are_left_alone(db: Database, folder: DataFolder, tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    outside.write_text("of somebody else")
    os.utime(outside, (0, 0))
    (folder.root / "images" / "ab").mkdir(parents=True)
    (folder.root / "images" / "ab" / "link.png").symlink_to(outside)
    (folder.root / "datasets").mkdir()
    (folder.root / "datasets" / "linked").symlink_to(tmp_path)
    assert sweep(db, folder) == 0
    assert outside.exists()
    assert (folder.root / "images" / "ab" / "link.png").is_symlink()

"""What dead processes left between files and rows is put right at a node's start; see tests/crash for the kills."""

import os
import time
from pathlib import Path

import pytest

from app.db.base import new_id
from app.db.models import Dataset, Image, Job
from app.db.session import Database
from app.services.datasets import settle_deletion
from app.services.leftovers import remove_unrecorded, sweep
from app.storage.layout import DataFolder


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path / "data")


def add_dataset(db: Database, folder: DataFolder, status: str) -> tuple[str, str, str]:
    """Add a dataset of one recorded and one unrecorded file; return its id and their paths."""
    paths = [folder.dataset_image_path("fox-dog", "train", "fox", k, "png", seed=k) for k in range(2)]
    for path in paths:
        folder.write(path, b"image")
    dataset = Dataset(
        id=new_id(), name="fox-dog", status=status, seed=0, classes=[], train_per_class=2, test_per_class=0,
        generation={},
    )  # fmt: skip
    image = Image(
        id=new_id(), path=paths[0], format="png", width=1, height=1, num_bytes=5, sha256="0" * 64, lineage={},
        dataset_id=dataset.id, split="train", class_index=0, position=0,
    )  # fmt: skip
    with db.transaction() as session:
        session.add(dataset)
        session.flush()
        session.add(image)
    return dataset.id, paths[0], paths[1]


@pytest.mark.parametrize(("status", "num_left"), [("ready", 1), ("cancelled", 1), ("generating", 2), ("queued", 2)])
def test_files_without_a_row_go_where_no_job_is_at_work(
    db: Database, folder: DataFolder, status: str, num_left: int
) -> None:
    _, recorded, _ = add_dataset(db, folder, status)
    sweep(db, folder)
    assert len(list(folder.dataset_paths("fox-dog"))) == num_left
    assert folder.read(recorded) == b"image"


def test_a_job_removes_what_it_left_itself(db: Database, folder: DataFolder) -> None:
    dataset_id, recorded, _ = add_dataset(db, folder, "generating")
    assert remove_unrecorded(db, folder, dataset_id) == 1
    assert remove_unrecorded(db, folder, dataset_id) == 0
    assert list(folder.dataset_paths("fox-dog")) == [recorded]
    assert remove_unrecorded(db, folder, "no dataset") == 0


@pytest.mark.parametrize("is_gone", [True, False])
def test_a_deletion_that_was_begun_is_ended_or_undone(db: Database, folder: DataFolder, is_gone: bool) -> None:
    dataset_id, recorded, _ = add_dataset(db, folder, "ready")
    folder.take_dataset("fox-dog", dataset_id)
    if is_gone:
        with db.transaction() as session:
            session.delete(session.get_one(Dataset, dataset_id))
    sweep(db, folder)
    assert folder.taken_datasets() == []
    assert list(folder.dataset_paths("fox-dog")) == ([] if is_gone else [recorded])
    settle_deletion(db, folder, dataset_id)  # may be repeated


@pytest.mark.parametrize(("age_s", "kind", "is_left"), [(7_200, "", False), (60, "", True), (7_200, "generate", True)])
def test_old_images_without_a_row_go_unless_a_job_may_record_them(
    db: Database, folder: DataFolder, age_s: float, kind: str, is_left: bool
) -> None:
    path = folder.image_path(new_id(), "png")
    folder.write(path, b"image")
    os.utime(folder.root / path, (time.time() - age_s,) * 2)
    if kind:
        with db.transaction() as session:
            session.add(Job(id=new_id(), kind=kind, status="paused", spec={}, progress_unit="images"))
    sweep(db, folder)
    assert (folder.root / path).exists() == is_left

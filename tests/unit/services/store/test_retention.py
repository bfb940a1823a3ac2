"""What is too old or too much is removed, oldest first; what something needs stays; files and rows agree."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select
from typer.testing import CliRunner

from app.cli.main import app
from app.db.base import new_id, utc_now
from app.db.models import Dataset, Image, Job, RemovedFile
from app.db.session import Database
from app.services.store.identity import assign_store_id
from app.services.store.recovery import sweep
from app.services.store.removal import finish_removals, forget_generations
from app.services.store.retention import Removed, Retention, prune, would_remove
from app.storage.layout import DataFolder
from testing.old_images import DAY, add_generation, add_generations, check_files, generations, image_ids, total_bytes

KB_PER_GB = 1_000_000
HOUR = timedelta(hours=1)


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path / "data")


def no_pause(seconds: float) -> None:
    """Go on at once."""


def add_job(db: Database, status: str, **spec: Any) -> str:
    with db.transaction() as session:
        job = Job(id=new_id(), kind="generate", status=status, spec=spec, progress_unit="images")
        session.add(job)
    return job.id


def add_dataset_image(db: Database, folder: DataFolder) -> None:
    """Add an image of a dataset that is older than everything else."""
    dataset_id, path = new_id(), folder.dataset_image_path("fox", "train", "fox", 0, "png", seed=1)
    folder.write(path, b"fox")
    with db.transaction() as session:
        session.add(
            Dataset(
                id=dataset_id, name="fox", status="ready", seed=0, classes=[], train_per_class=1, test_per_class=0,
                generation={},
            )
        )  # fmt: skip
        session.flush()
        session.add(
            Image(
                id=new_id(), created_at=utc_now() - 1_000 * DAY, path=path, format="png", width=1, height=1,
                num_bytes=3, sha256="", lineage={}, dataset_id=dataset_id, split="train", class_index=0, position=0,
            )
        )  # fmt: skip


def test_by_age_and_by_size_the_oldest_go_and_a_dry_run_says_so_before(db: Database, folder: DataFolder) -> None:
    add_dataset_image(db, folder)
    now = utc_now()
    # A hundred generations of two images and 2 kB, each an hour older than the one before, recorded out of order.
    hours = (*range(0, 100, 2), *range(1, 100, 2))
    by_age = dict(
        zip(hours, add_generations(db, folder, [age * HOUR for age in hours], num_images=2, now=now), strict=True)
    )

    def check(retention: Retention, num_left: int) -> None:
        before = len(generations(db))
        expected = would_remove(db, retention, now=lambda: now)
        assert len(generations(db)) == before
        assert prune(db, folder, retention, pause=no_pause, now=lambda: now) == expected
        assert (expected.generations, expected.images, expected.bytes) == (
            before - num_left, 2 * (before - num_left), 2_000 * (before - num_left)
        )  # fmt: skip
        assert generations(db) == {by_age[age] for age in range(num_left)}
        if before > num_left:
            ages = (now - timedelta(hours=before - 1), now - timedelta(hours=num_left))
            assert (expected.oldest, expected.newest) == ages
        check_files(db, folder)

    check(Retention(), 100)
    check(Retention(days=1_000.0), 100)
    check(Retention(days=89.5 / 24), 90)
    check(Retention(days=1e9), 90)
    check(Retention(gigabytes=180 / KB_PER_GB), 90)  # exactly what is there
    check(Retention(gigabytes=179.9 / KB_PER_GB), 89)
    check(Retention(days=79.5 / 24, gigabytes=100 / KB_PER_GB), 50)
    check(Retention(days=39.5 / 24, gigabytes=100 / KB_PER_GB), 40)
    check(Retention(gigabytes=0), 0)
    assert would_remove(db, Retention(days=0)) == Removed()
    assert total_bytes(db) == 3  # the dataset's


def test_what_a_job_needs_stays_until_the_job_has_ended(db: Database, folder: DataFolder) -> None:
    made_by = add_job(db, "running", prompt="a fox")
    kept_by_its_job = add_generation(db, folder, age=9 * DAY, job_id=made_by)
    named = add_generation(db, folder, age=9 * DAY, num_images=3)
    needs = add_job(db, "paused", init_image={"image_id": image_ids(db, named)[1]}, labels=None)
    done = add_job(db, "succeeded", init_image={"image_id": image_ids(db, named)[0]})
    free = add_generation(db, folder, age=9 * DAY, job_id=done)
    assert would_remove(db, Retention(days=1)).generations == 1
    assert prune(db, folder, Retention(days=1), pause=no_pause).generations == 1
    assert generations(db) == {kept_by_its_job, named} == {kept_by_its_job, named, free} - {free}
    for job_id in (made_by, needs):
        with db.transaction() as session:
            session.get_one(Job, job_id).status = "failed"
    assert prune(db, folder, Retention(days=1), pause=no_pause).images == 4
    check_files(db, folder)


def test_a_job_that_comes_while_a_prune_runs_keeps_what_it_names(db: Database, folder: DataFolder) -> None:
    ids = add_generations(db, folder, [9 * DAY] * 70)  # three pages

    def submit_then(seconds: float) -> None:
        if len(generations(db)) == 70 - 32:
            add_job(db, "queued", from_images=image_ids(db, ids[-1]))

    assert prune(db, folder, Retention(days=1), pause=submit_then).generations == 69
    assert generations(db) == {ids[-1]}


def test_prunes_at_the_same_time_remove_no_more_than_one_alone(
    db: Database, database_url: str, folder: DataFolder
) -> None:
    add_generations(db, folder, [age * HOUR for age in range(200)])
    with ThreadPoolExecutor(5) as pool:
        dbs = [Database(database_url) for _ in range(4)]
        retention = Retention(gigabytes=60 / KB_PER_GB)
        prunes = [pool.submit(prune, each, folder, retention) for each in dbs]
        added = pool.submit(lambda: [add_generation(db, folder) for _ in range(10)])
        removed = [each.result() for each in prunes]
        assert len(added.result()) == 10
        for each in dbs:
            each.close()
    assert sum(each.generations for each in removed) in range(140, 151)  # with or without those that came meanwhile
    assert len(generations(db)) == 210 - sum(each.generations for each in removed)
    check_files(db, folder)


def test_a_generation_that_is_deleted_while_it_is_pruned_is_deleted_once(
    db: Database, database_url: str, folder: DataFolder
) -> None:
    ids = add_generations(db, folder, [9 * DAY] * 64)

    def delete_all() -> int:
        num_deleted = 0
        for generation_id in reversed(ids):
            with db.transaction() as session:
                paths = forget_generations(session, [generation_id])
            num_deleted += len(paths)
            for path in paths:
                folder.delete(path)
        return num_deleted

    with ThreadPoolExecutor(1) as pool:
        deleting = pool.submit(delete_all)
        other = Database(database_url)
        removed = prune(other, folder, Retention(days=1), pause=no_pause)
        assert removed.images + deleting.result() == 64
        other.close()
    finish_removals(db, folder)
    check_files(db, folder)


@pytest.mark.parametrize("is_swept_first", [False, True])
def test_what_an_interrupted_deletion_left_is_finished_and_not_kept(
    db: Database, folder: DataFolder, is_swept_first: bool
) -> None:
    ids = add_generations(db, folder, [9 * DAY] * 8, num_images=16)
    for path in (folder.root / "images").rglob("*.png"):
        os.utime(path, (0, 0))  # old enough for a sweep
    with db.transaction() as session:
        paths = forget_generations(session, ids[:6])
    assert len(paths) == 96
    folder.delete(paths[0])
    if is_swept_first:
        assert sweep(db, folder) == 0
        assert len(list((folder.root / "images").rglob("*.png"))) == 127
    assert finish_removals(db, folder) == 96
    assert finish_removals(db, folder) == 0
    assert generations(db) == set(ids[6:])
    check_files(db, folder)


def test_a_path_with_a_record_is_never_removed(db: Database, folder: DataFolder) -> None:
    generation_id = add_generation(db, folder)
    with db.transaction() as session:
        path = session.scalars(select(Image.path).where(Image.generation_id == generation_id)).one()
        session.add(RemovedFile(path=path))
    assert finish_removals(db, folder) == 0
    check_files(db, folder)


def test_no_transaction_of_a_prune_deletes_more_than_a_page(db: Database, folder: DataFolder) -> None:
    add_generations(db, folder, [9 * DAY] * 40)
    add_generations(db, folder, [8 * DAY] * 10, num_images=16)
    sizes = []

    def count(_conn: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        if statement.startswith("DELETE FROM generations"):
            sizes.append(len(parameters))

    event.listen(db.engine, "before_cursor_execute", count)
    prune(db, folder, Retention(days=1), pause=no_pause)
    assert sizes == [32, 8 + 4, 4, 2]


def test_a_prune_that_is_stopped_between_pages_leaves_the_rest(db: Database, folder: DataFolder) -> None:
    add_generations(db, folder, [9 * DAY] * 40)

    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prune(db, folder, Retention(days=1), pause=stop)
    assert len(generations(db)) == 8
    check_files(db, folder)


def test_the_command_says_first_what_it_would_do_and_then_does_it(
    db: Database, database_url: str, folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assign_store_id(db, folder)
    add_generations(db, folder, [(24 * days + 0.1) * HOUR for days in range(6)], num_bytes=100_000)
    monkeypatch.setenv("FOXHOUND_DATA_DIR", str(folder.root))
    monkeypatch.setenv("FOXHOUND_DATABASE_URL", database_url)

    def run(*arguments: str) -> Any:
        result = CliRunner().invoke(app, ["storage", *arguments])
        assert result.exit_code == 0, result.output
        return json.loads(result.output) if "--json" in arguments else result.output

    assert "Nothing limits what is kept" in run("prune")
    assert run("report", "--json")["retention"]["keep_images_days"] is None
    monkeypatch.setenv("FOXHOUND_KEEP_IMAGES_DAYS", "4.5")
    told = run("report", "--json")["retention"]
    assert (told["keep_images_days"], told["would_remove"]["generations"], told["last_run"]) == (4.5, 1, None)
    assert "Would remove 1 images of 1 generations, 0.1 MB" in run("prune", "--dry-run")
    dry = run("prune", "--dry-run", "--days", "2", "--json")
    assert (dry["dry_run"], dry["keep_images_days"], dry["images"], dry["bytes"]) == (True, 2, 4, 400_000)
    assert dry["oldest"] < dry["newest"]
    assert len(generations(db)) == 6
    assert {**run("prune", "--days", "2", "--json"), "dry_run": True} == dry
    assert "Removed 1 images" in run("prune", "--gb", "0.0001")
    assert len(generations(db)) == 1
    assert "Removed nothing." in run("prune")
    assert "images of /generate are kept up to an age of 4.5 days" in run("report")
    check_files(db, folder)

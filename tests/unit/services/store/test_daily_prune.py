"""Once a day one worker prunes; a run whose worker died is continued by another one, and counted as a whole."""

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, event, select

from app.db.base import new_id, utc_now
from app.db.models import PruneRun, Worker
from app.db.session import Database
from app.services.store.daily_prune import DailyPrune, Stopped
from app.services.store.report import storage_report
from app.services.store.retention import Retention
from app.storage.layout import DataFolder
from testing.old_images import DAY, add_generation, add_generations, check_files, generations

LIMIT = Retention(days=1)


class Clock:
    """A time that a test moves."""

    def __init__(self) -> None:
        self.now = utc_now().replace(hour=12)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path / "data")


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """An event that is set at the end of the test."""
    event = threading.Event()
    yield event
    event.set()


def add_worker(db: Database) -> str:
    with db.transaction() as session:
        worker = Worker(id=new_id(), host="a", pid=1)
        session.add(worker)
    return worker.id


def remove_worker(db: Database, worker_id: str) -> None:
    """Do as the reaper does with a dead worker."""
    with db.transaction() as session:
        session.execute(delete(Worker).where(Worker.id == worker_id))


def runs(db: Database) -> list[PruneRun]:
    with db.snapshot() as session:
        return list(session.scalars(select(PruneRun).order_by(PruneRun.day)))


def test_one_of_several_workers_does_it_once_a_day(
    db: Database, folder: DataFolder, clock: Clock, never: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    add_generations(db, folder, [2 * DAY] * 40, now=clock.now)
    several = [DailyPrune(db, folder, LIMIT, add_worker(db), now=clock) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda daily: daily.round(never), several))
    assert generations(db) == set()
    (run,) = runs(db)
    assert (run.num_generations, run.num_images, run.num_bytes, run.finished_at) == (40, 40, 40_000, clock.now)
    assert [record.message for record in caplog.records if "daily" in record.message] == [
        "The daily removal of images has ended: 40 images of 40 generations, 0.0 MB."
    ]
    add_generation(db, folder, age=2 * DAY, now=clock.now)
    for daily in several:
        daily.round(never)
    assert len(generations(db)) == 1  # only tomorrow
    clock.now += DAY
    for daily in reversed(several):
        daily.round(never)
    assert [(run.day, run.num_images) for run in runs(db)] == [
        (f"{clock.now - DAY:%Y-%m-%d}", 40),
        (f"{clock.now:%Y-%m-%d}", 1),
    ]
    report = storage_report(db, folder, folder.root, LIMIT).retention
    assert report.last_run is not None
    assert (report.last_run.day, report.last_run.images, report.unfinished) == (f"{clock.now:%Y-%m-%d}", 1, 0)


def test_a_run_is_continued_when_its_worker_is_dead_and_not_before(
    db: Database, folder: DataFolder, clock: Clock, never: threading.Event
) -> None:
    add_generations(db, folder, [2 * DAY] * 70, now=clock.now)
    stopped, first, second = threading.Event(), add_worker(db), add_worker(db)
    stopped.set()
    with pytest.raises(Stopped):
        DailyPrune(db, folder, LIMIT, first, now=clock).round(stopped)  # leaves after the first page
    assert len(generations(db)) == 38
    successor = DailyPrune(db, folder, LIMIT, second, now=clock)
    successor.round(never)
    assert len(generations(db)) == 38
    remove_worker(db, first)
    successor.round(never)
    (run,) = runs(db)
    assert (run.worker_id, run.num_generations, run.finished_at) == (second, 70, clock.now)
    check_files(db, folder)


def test_a_worker_without_its_row_begins_nothing(
    db: Database, folder: DataFolder, clock: Clock, never: threading.Event
) -> None:
    add_generation(db, folder, age=2 * DAY, now=clock.now)
    daily = DailyPrune(db, folder, LIMIT, "not registered", now=clock)
    daily.round(never)
    assert (len(generations(db)), runs(db)) == (1, [])


def test_without_a_limit_there_is_no_run(db: Database, folder: DataFolder, never: threading.Event) -> None:
    add_generation(db, folder, age=2 * DAY)
    DailyPrune(db, folder, Retention(), add_worker(db)).watch(never)  # returns
    assert (len(generations(db)), runs(db)) == (1, [])


def test_it_goes_on_after_a_failure_and_ends_with_its_worker(
    db: Database, folder: DataFolder, caplog: pytest.LogCaptureFixture
) -> None:
    add_generation(db, folder, age=2 * DAY)
    failures = iter([True, True])

    def fail_twice(_conn: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.startswith("DELETE FROM generations") and next(failures, False):
            raise OSError("the disk is away")

    event.listen(db.engine, "before_cursor_execute", fail_twice)
    daily, stop = DailyPrune(db, folder, LIMIT, add_worker(db), interval_s=0.01), threading.Event()
    thread = threading.Thread(target=daily.watch, args=(stop,))
    thread.start()
    try:
        while not any(run.finished_at for run in runs(db)) and thread.is_alive():
            stop.wait(0.01)
    finally:
        stop.set()
        thread.join()
    assert generations(db) == set()
    assert caplog.text.count("The daily removal of images failed") == 2


def test_a_month_of_runs_is_kept(db: Database, folder: DataFolder, clock: Clock, never: threading.Event) -> None:
    daily = DailyPrune(db, folder, LIMIT, add_worker(db), now=clock)
    for _ in range(33):
        daily.round(never)
        clock.now += timedelta(days=1)
    assert len(runs(db)) == 30
    assert runs(db)[-1].day == f"{clock.now - DAY:%Y-%m-%d}"

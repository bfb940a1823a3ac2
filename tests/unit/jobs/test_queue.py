from pathlib import Path

import pytest
from sqlalchemy import create_engine, func, select, text
from sqlalchemy.pool import NullPool

from app.db.base import new_id
from app.db.models import Job
from app.db.session import Database
from app.db.session import database_url as parse_url
from app.errors import NotFound
from app.jobs.queue import JobQueue
from testing.pictures import dataset_status, job_row, made, submit_pictures, wait_for_end
from testing.waiting import wait_until
from tests.unit.jobs.conftest import StartWorker


def count_workflows(url: str) -> int:
    table = "workflow_status" if url.startswith("sqlite") else "dbos.workflow_status"
    with create_engine(parse_url(url), poolclass=NullPool).connect() as connection:
        return connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()


def test_a_rolled_back_submit_leaves_neither_row_nor_workflow(db: Database, queue: JobQueue, database_url: str) -> None:
    def submit_and_roll_back() -> None:
        with db.transaction() as session:
            queue.submit(session, kind="pictures", spec={}, total=0, unit="images")
            raise InterruptedError

    with pytest.raises(InterruptedError):
        submit_and_roll_back()
    with db.snapshot() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 0
    assert count_workflows(database_url) == 0


def test_a_submitted_job_is_queued_with_its_id(db: Database, queue: JobQueue, database_url: str) -> None:
    job_id = new_id()
    with db.transaction() as session:
        queue.submit(session, kind="pictures", spec={"a": 1}, total=3, unit="images", job_id=job_id)
    job = job_row(db, job_id)
    assert (job.status, job.spec, job.progress_total, job.progress_unit) == ("queued", {"a": 1}, 3, "images")
    assert (job.attempts, job.version) == (0, 1)
    assert count_workflows(database_url) == 1


def test_a_queued_job_is_cancelled_at_once_and_never_begins(
    db: Database, queue: JobQueue, working: StartWorker, tmp_path: Path
) -> None:
    cancelled = submit_pictures(queue, db, tmp_path / "cancelled")
    assert queue.cancel(cancelled).status == "cancelled"
    assert dataset_status(db, cancelled) == "cancelled"
    before = job_row(db, cancelled).version
    with working():
        wait_for_end(db, submit_pictures(queue, db, tmp_path / "later"))
    assert made(tmp_path / "cancelled") == []
    assert job_row(db, cancelled).version == before


def test_a_running_job_is_cancelled_within_the_next_picture(
    db: Database, queue: JobQueue, working: StartWorker, tmp_path: Path
) -> None:
    folder = tmp_path / "d"
    job_id = submit_pictures(queue, db, folder, num=300, chunk_size=3, stop_at=4)
    with working():
        wait_until((folder / "reached").exists)
        assert queue.cancel(job_id).status == "running"
        version = queue.cancel(job_id).version  # asking twice changes nothing
        assert version == job_row(db, job_id).version
        (folder / "go").touch()
        job = wait_for_end(db, job_id)
        assert made(folder) == [0, 1, 2, 3, 4]
    assert (job.status, job.error, job.result) == ("cancelled", None, None)
    assert job.progress_done == 3
    assert dataset_status(db, job_id) == "cancelled"


def test_cancelling_a_finished_job_changes_nothing(
    db: Database, queue: JobQueue, working: StartWorker, tmp_path: Path
) -> None:
    job_id = submit_pictures(queue, db, tmp_path / "d")
    with working():
        finished = wait_for_end(db, job_id)
    job = queue.cancel(job_id)
    assert (job.status, job.version, job.cancel_requested) == ("succeeded", finished.version, False)


def test_cancelling_an_unknown_job_raises(queue: JobQueue) -> None:
    with pytest.raises(NotFound):
        queue.cancel(new_id())

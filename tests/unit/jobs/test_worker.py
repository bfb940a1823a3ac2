"""A worker in this process, with a fake kind of job; killed workers are in tests/crash."""

import json
import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from dbos import DBOSClient
from sqlalchemy import create_engine, inspect, select, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from app.db.models import Job, Worker
from app.db.session import Database
from app.db.session import database_url as parse_url
from app.jobs import durable
from app.jobs.handler import JobContext
from app.jobs.queue import JobQueue
from app.jobs.record import set_total
from app.jobs.signals import Json, Requeue
from testing.pictures import (
    Pictures,
    dataset_status,
    job_row,
    made,
    recorded_positions,
    submit_pictures,
    wait_for_end,
)
from testing.waiting import wait_until
from tests.unit.jobs.conftest import StartWorker


def test_a_job_runs_to_its_result(db: Database, queue: JobQueue, working: StartWorker, tmp_path: Path) -> None:
    job_id = submit_pictures(queue, db, tmp_path / "d", num=36, chunk_size=2)  # more chunks than run ahead
    with working():
        job = wait_for_end(db, job_id)
    assert job.status == "succeeded"
    assert job.result == {"made": list(range(36))}
    assert sorted(made(tmp_path / "d")) == recorded_positions(db) == list(range(36))
    assert (job.progress_done, job.progress_total, job.attempts, job.error) == (36, 36, 1, None)
    assert job.started_at is not None
    assert job.finished_at is not None
    assert job.finished_at >= job.started_at >= job.created_at
    assert dataset_status(db, job_id) == "ready"


@pytest.mark.parametrize("in_parent", [False, True])
def test_an_app_error_becomes_the_jobs_problem(
    db: Database, queue: JobQueue, working: StartWorker, tmp_path: Path, in_parent: bool
) -> None:
    job_id = submit_pictures(queue, db, tmp_path / "d", num=300, refuse_at=4, in_parent=in_parent)
    with working():
        job = wait_for_end(db, job_id)
    assert job.status == "failed"
    assert job.error == {
        "type": "/docs/errors/storage_full",
        "title": "Storage full",
        "status": 507,
        "detail": "There is no room left to store the result.",
        "code": "storage_full",
    }
    assert len(made(tmp_path / "d")) < 100  # the rest was not begun
    assert dataset_status(db, job_id) == "failed"


def test_an_unexpected_error_is_logged_and_not_shown(
    db: Database, queue: JobQueue, working: StartWorker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = submit_pictures(queue, db, tmp_path / "d", break_at=4)
    with working(), caplog.at_level(logging.ERROR, "app.jobs"):
        job = wait_for_end(db, job_id)
    assert job.error is not None
    assert (job.error["code"], job.error["status"]) == ("internal_error", 500)
    assert "secret" not in json.dumps(job.error)
    assert "a secret of the implementation" in caplog.text


def test_another_worker_ends_the_job_of_a_stopped_one(
    db: Database, queue: JobQueue, working: StartWorker, tmp_path: Path
) -> None:
    folder = tmp_path / "d"
    job_id = submit_pictures(queue, db, folder, stop_at=4)
    with working():
        wait_until((folder / "reached").exists)
        threading.Timer(0.5, (folder / "go").touch).start()  # when the worker has left
    with db.snapshot() as session:
        assert session.scalars(select(Worker)).all() == []
    with working():
        job = wait_for_end(db, job_id)
    assert (job.status, job.attempts, job.result) == ("succeeded", 1, {"made": list(range(12))})
    assert recorded_positions(db) == list(range(12))


class Requeueing(Pictures):
    """Raises Requeue twice."""

    def __init__(self) -> None:
        self.calls = 0

    def run_chunk(self, job: JobContext, item: Json) -> Json:
        self.calls += 1
        if self.calls <= 2:
            raise Requeue
        return super().run_chunk(job, item)


def test_requeued_work_is_done_later_and_counts_no_attempt(
    db: Database, queue: JobQueue, working: StartWorker, tmp_path: Path
) -> None:
    job_id = submit_pictures(queue, db, tmp_path / "d", num=3)
    with working(handler := Requeueing()):
        job = wait_for_end(db, job_id)
    assert (job.status, job.attempts, handler.calls) == ("succeeded", 1, 3)


class Short:
    """A job without chunks, on the queue that never waits behind them; corrects its total and ends."""

    kind = "pictures"
    queue = "generate"

    def run(self, job: JobContext) -> None:
        job.transaction("count", lambda session: set_total(session, job.id, 7))

    def run_chunk(self, job: JobContext, item: Json) -> Json:
        raise AssertionError

    def before_retry(self, session: Session, failed: Job, retry_id: str) -> None:
        pass

    def on_end(self, session: Session, job: Job) -> None:
        pass


class Long(Pictures):
    """The same work as `Pictures` under another name, to be used beside `Short`."""

    kind = "long"


def test_a_short_job_does_not_wait_behind_chunks(
    db: Database, database_url: str, queue: JobQueue, working: StartWorker, tmp_path: Path
) -> None:
    folder = tmp_path / "d"
    long = JobQueue(db, database_url, [Long(), Short()])
    with db.transaction() as session:
        spec: dict[str, Any] = {"num": 3, "chunk_size": 3, "folder": str(folder), "dataset_id": "", "stop_at": 0}
        long.submit(session, kind="long", spec=spec, total=3, unit="images")
    folder.mkdir()
    with working(Long(), Short()):
        wait_until((folder / "reached").exists)
        with db.transaction() as session:
            short = long.submit(session, kind="pictures", spec={}, total=0, unit="images").id
        job = wait_for_end(db, short)
        (folder / "go").touch()
    assert (job.status, job.result, job.progress_total) == ("succeeded", None, 7)
    long.close()


def test_nothing_in_the_database_is_a_pickle(
    db: Database, database_url: str, queue: JobQueue, working: StartWorker, tmp_path: Path
) -> None:
    with working():
        wait_for_end(db, submit_pictures(queue, db, tmp_path / "good"))
        wait_for_end(db, submit_pictures(queue, db, tmp_path / "bad", refuse_at=4))
    engine = create_engine(parse_url(database_url), poolclass=NullPool)
    schema = None if engine.dialect.name == "sqlite" else "dbos"
    formats: set[str] = set()
    with engine.connect() as connection:
        for table in inspect(engine).get_table_names(schema=schema):
            if "serialization" in {column["name"] for column in inspect(engine).get_columns(table, schema=schema)}:
                name = f"{schema}.{table}" if schema else table
                formats |= set(connection.execute(text(f"SELECT DISTINCT serialization FROM {name}")).scalars())
    assert formats - {None} == {"portable_json"}


def test_an_operators_cancel_in_the_job_engine_reaches_the_row(
    db: Database, client: DBOSClient, queue: JobQueue, working: StartWorker, tmp_path: Path
) -> None:
    job_id = submit_pictures(queue, db, tmp_path / "d")
    client.cancel_workflow(durable.job_workflow_id(job_id))
    with working():
        job = wait_for_end(db, job_id)
    assert (job.status, job.error) == ("cancelled", None)


def test_an_api_that_writes_all_the_time_gets_no_locked_database(
    db: Database, queue: JobQueue, working: StartWorker, tmp_path: Path
) -> None:
    """SQLite keeps its rollback journal here: readers and writers wait for each other, but never fail."""
    over = threading.Event()
    errors: list[Exception] = []

    def press() -> None:
        while not over.is_set():
            try:
                with db.transaction() as session:
                    session.scalars(select(Job)).all()
                    set_total(session, job_id, 24)
                with db.snapshot() as session:
                    session.scalars(select(Job)).all()
            except Exception as error:
                errors.append(error)
            time.sleep(0.005)

    job_id = submit_pictures(queue, db, tmp_path / "d", num=24, chunk_size=2)
    api = [threading.Thread(target=press) for _ in range(3)]
    with working():
        for thread in api:
            thread.start()
        job = wait_for_end(db, job_id)
        over.set()
        for thread in api:
            thread.join()
    assert errors == []
    assert (job.status, job.progress_done, job.progress_total) == ("succeeded", 24, 24)
    assert job_row(db, job_id).version == job.version

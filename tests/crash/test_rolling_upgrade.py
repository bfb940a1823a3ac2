"""A job that one release began is ended by the next: other tables, older chunks, kinds that only one of them knows."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy.orm import Session

from app.db.migrations import MigrationNeeded, alembic_config, check
from app.db.models import Dataset, Job
from app.db.session import Database
from app.jobs.handler import JobContext
from app.jobs.queue import JobQueue
from app.jobs.signals import Json
from app.jobs.worker import Worker
from app.node.client import NodeClient
from app.services.datasets.job import DatasetImages, DatasetJob
from app.storage.layout import DataFolder
from testing.fake_models import FakeModels
from testing.node import Node, make_settings, serve
from testing.pictures import Pictures, job_row, submit_pictures, wait_for_end
from testing.shared_storage import NUM_IMAGES, Shared
from testing.waiting import wait_until

Working = Callable[..., AbstractContextManager[Worker]]


@pytest.fixture
def working(db: Database, database_url: str) -> Working:
    """A worker of a release that knows these kinds of job, for the length of a with block."""

    @contextmanager
    def start(*handlers: Any) -> Iterator[Worker]:
        worker = Worker(db, database_url, handlers, ttl_s=2, poll_s=0.02, chunks_at_once=1)
        worker.start()
        try:
            yield worker
        finally:
            worker.stop(grace_s=0)

    return start


@pytest.fixture
def node(tmp_path: Path, database_url: str) -> Iterator[Node]:
    with serve(make_settings(tmp_path / "data", database_url), FakeModels()) as served:
        yield served


@pytest.fixture
def shared(node: Node, db: Database) -> Shared:
    return Shared(node.http, db, node.settings.data_dir)


@pytest.fixture
def images(node: Node, db: Database) -> Iterator[DatasetImages]:
    client = NodeClient(node.settings.engine_socket)
    yield DatasetImages(db, DataFolder(node.settings.data_dir), client, chunk_size=4)
    client.close()


class OldJob(DatasetJob):
    """As of the release whose chunks returned how many images they made, and no more; stops in its third chunk."""

    has_stopped = False

    def run_chunk(self, job: JobContext, item: dict[str, Any]) -> Json:
        while item["start"] == 8:
            self.has_stopped = True
            job.check_cancelled()
            time.sleep(0.02)
        made: Any = super().run_chunk(job, item)
        return made["made"]


def begin(shared: Shared, working: Working, images: DatasetImages, name: str = "shared") -> dict[str, Any]:
    """Let a worker of the older release make a part of a dataset, and stop it."""
    old = OldJob(images)
    read = shared.submit(name=name)
    with working(old):
        wait_until(lambda: old.has_stopped)
    assert 0 < shared.job(read).progress_done < NUM_IMAGES
    return read


def test_chunks_that_an_older_release_ended_count(shared: Shared, working: Working, images: DatasetImages) -> None:
    read = begin(shared, working, images)
    with working(DatasetJob(images)):
        job = shared.end(read)
    assert (job.status, job.progress_done, job.attempts) == ("succeeded", NUM_IMAGES, 1)
    assert job.result == {"dataset_id": read["id"], "num_images": NUM_IMAGES, "num_missing": 0}
    ended = shared.dataset(read["id"])
    assert (ended["status"], ended["missing"]) == ("ready", [])
    assert shared.files() == shared.rows()


@pytest.mark.parametrize("revision", ["0001", "0002", "0003", "0004"])
def test_a_job_begun_before_a_migration_is_ended_after_it(
    shared: Shared, working: Working, images: DatasetImages, database_url: str, revision: str
) -> None:
    read = begin(shared, working, images)
    shared.db.engine.dispose()
    command.downgrade(alembic_config(database_url), revision)  # as the older release left the tables
    with pytest.raises(MigrationNeeded):
        check(database_url)
    command.upgrade(alembic_config(database_url), "head")
    undisturbed = shared.submit(name="undisturbed")
    with working(DatasetJob(images)):
        job = shared.end(read)
        shared.end(undisturbed)
    assert (job.status, job.progress_done) == ("succeeded", NUM_IMAGES)
    files, rows = shared.files(), shared.rows()
    assert files == rows
    assert in_folder("shared", files) == in_folder("undisturbed", files)


def in_folder(name: str, files: dict[str, str]) -> dict[str, str]:
    prefix = f"datasets/{name}/"
    return {path.removeprefix(prefix): digest for path, digest in files.items() if path.startswith(prefix)}


class Novel(Pictures):
    """A kind of job that only a newer release knows."""

    kind = "novel"

    def on_end(self, session: Session, job: Job) -> None:
        session.get_one(Dataset, job.spec["dataset_id"]).status = "ready"


def submit_novel(queue: JobQueue, db: Database, url: str, folder: Path) -> str:
    """Submit a job of the newer release's kind, on a dataset of its own."""
    cancelled = queue.cancel(submit_pictures(queue, db, folder))
    newer = JobQueue(db, url, [Novel()])
    with db.transaction() as session:
        job_id = newer.submit(session, kind="novel", spec=cancelled.spec, total=12, unit="images").id
    newer.close()
    return job_id


def test_a_job_of_a_kind_that_only_a_newer_worker_knows_waits_for_it(
    db: Database, database_url: str, queue: JobQueue, working: Working, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = submit_pictures(queue, db, tmp_path / "known")
    novel = submit_novel(queue, db, database_url, tmp_path / "novel")
    with working(Pictures()):
        wait_for_end(db, known)
        wait_until(lambda: "novel" in caplog.text)
        later = submit_pictures(queue, db, tmp_path / "later")
        wait_for_end(db, later)  # it blocks no other job
    left = job_row(db, novel)
    assert (left.status, left.attempts, left.version) == ("queued", 0, 1)
    assert caplog.text.count("novel") == 1
    with working(Pictures(), Novel()):
        assert wait_for_end(db, novel).status == "succeeded"

"""What goes wrong around a node: full or refusing storage, a lost database. It waits, says so, and goes on."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from app.db.session import Database
from app.errors import StorageFull
from app.jobs.worker import Worker
from app.node.client import NodeClient
from app.services.datasets.job import DatasetImages, DatasetJob
from app.services.store.recovery import sweep
from app.storage.layout import DataFolder
from testing.fake_jobs import run_job
from testing.fake_models import FakeModels
from testing.node import Node, make_settings, serve
from testing.node_process import NodeProcesses, nodes
from testing.outages import full_for, locked, proxied, read_only
from testing.shared_storage import NUM_IMAGES, Shared
from testing.waiting import wait_until


@pytest.fixture
def shared(database_url: str, db: Database, tmp_path: Path) -> Iterator[Shared]:
    settings = make_settings(tmp_path / "data", database_url, run_dir=tmp_path / "front")
    with serve(settings, FakeModels()) as front:
        yield Shared(front.http, db, settings.data_dir)


@pytest.fixture
def worked(shared: Shared, database_url: str, tmp_path: Path) -> Iterator[NodeProcesses]:
    """A node whose worker waits for its engine's first step."""
    with nodes(tmp_path, shared.data_dir, database_url) as start:
        node = start("node")
        node.plan.hold.touch()
        yield node


def fill(node: NodeProcesses, data_dir: Path) -> AbstractContextManager[None]:
    assert node.worker.pid is not None
    return full_for(node.worker.pid)


def refuse(node: NodeProcesses, data_dir: Path) -> AbstractContextManager[None]:
    return read_only(data_dir)


@pytest.mark.parametrize("fault", [fill, refuse])
def test_a_job_waits_for_storage_that_is_full_or_refuses(
    shared: Shared,
    worked: NodeProcesses,
    fault: Callable[[NodeProcesses, Path], AbstractContextManager[None]],
) -> None:
    read = shared.submit()
    wait_until(worked.plan.held.exists)
    with fault(worked, shared.data_dir):
        worked.plan.hold.unlink()
        wait_until(worked.rendered)
        wait_until(worked.log)
        assert shared.rows() == {}
    job = shared.end(read)
    assert (job.status, job.attempts, job.progress_done) == ("succeeded", 1, NUM_IMAGES)
    assert shared.files() == shared.rows()


class FillingFolder(DataFolder):
    """Storage that takes so many files and no more, until there is room again."""

    room = 6

    def write(self, path: str, data: bytes) -> None:
        if self.room == 0:
            raise StorageFull
        self.room -= 1
        super().write(path, data)


def test_storage_that_stays_full_fails_the_job_and_a_retry_makes_the_rest(
    db: Database, database_url: str, node: Node
) -> None:
    shared = Shared(node.http, db, node.settings.data_dir)
    folder, client = FillingFolder(node.settings.data_dir), NodeClient(node.settings.engine_socket)
    images = DatasetImages(db, folder, client, chunk_size=4, storage_wait_s=0)
    worker = Worker(db, database_url, [DatasetJob(images)], ttl_s=2, poll_s=0.02, chunks_at_once=1)
    worker.start()
    try:
        read = shared.submit()
        job = shared.end(read)
        assert job.status == "failed"
        assert job.error is not None
        assert (job.error["code"], job.error["status"]) == ("storage_full", 507)
        assert shared.dataset(read["id"])["status"] == "failed"
        kept = shared.written()
        assert len(kept) == 4  # the chunk that was recorded; of the next one nothing
        assert shared.files() == shared.rows()
        folder.room = NUM_IMAGES - len(kept)
        retried = shared.http.post(f"/jobs/{read['job_id']}/retry").json()
        assert shared.end({"job_id": retried["id"]}).status == "succeeded"
        assert shared.written().items() >= kept.items()
        assert shared.files() == shared.rows()
        assert len(shared.files()) == NUM_IMAGES
    finally:
        worker.stop(grace_s=0)
        client.close()


def test_folders_of_no_dataset_are_set_aside_once_they_are_old(db: Database, node: Node) -> None:
    shared = Shared(node.http, db, node.settings.data_dir)
    folder = DataFolder(node.settings.data_dir)
    shared.submit(name="known")
    left = ("datasets/known", "datasets/gone", "rejected/gone", "datasets/young")
    for path in left:
        folder.write(f"{path}/train/fox/000000-1.png", b"an image")
    for path in left[:3]:
        os.utime(folder.root / path, (0, 0))
    sweep(db, folder)
    assert {path.split("/train")[0] for path in shared.files()} == {"datasets/known", "datasets/young"}
    moved = folder.root.glob(".lost+found/*/*/gone/train/fox/000000-1.png")
    assert {path.parts[-5] for path in moved} == {"datasets", "rejected"}


def test_a_new_dataset_does_not_inherit_files_of_a_deleted_one(db: Database, node: Node) -> None:
    shared = Shared(node.http, db, node.settings.data_dir)
    folder, client = DataFolder(node.settings.data_dir), NodeClient(node.settings.engine_socket)
    strange = "datasets/shared/train/fox/000000-1.png"
    folder.write(strange, b"an image of somebody who died over a deletion, or of another database")
    read = shared.submit()
    run_job(db, read["job_id"], DatasetJob(DatasetImages(db, folder, client, chunk_size=4)))
    client.close()
    assert len(shared.files()) == NUM_IMAGES
    assert shared.files() == shared.rows()
    (moved,) = folder.root.glob(f".lost+found/*/{strange}")
    assert moved.read_bytes().startswith(b"an image of somebody")


def assert_away(http: httpx.Client) -> None:
    """Expect the answer of a service that has no database."""
    answer = http.get("/datasets")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "database_unavailable"
    assert int(answer.headers["retry-after"]) >= 1


@pytest.fixture
def away(database_url: str, request: pytest.FixtureRequest) -> Iterator[tuple[str, Callable[[], object]]]:
    """A URL of the database, and how to be without it."""
    if database_url.startswith("sqlite"):
        yield database_url, lambda: locked(database_url)
        return
    with proxied(database_url) as proxy:

        class Outage:
            def __enter__(self) -> None:
                proxy.cut()

            def __exit__(self, *_: object) -> None:
                proxy.mend()

        yield proxy.url, Outage


def test_a_lost_database_is_told_and_waited_for(
    away: tuple[str, Callable[[], AbstractContextManager[None]]], db: Database, tmp_path: Path
) -> None:
    url, outage = away
    settings = make_settings(tmp_path / "data", url, run_dir=tmp_path / "front")
    with serve(settings, FakeModels()) as front, nodes(tmp_path, settings.data_dir, url) as start:
        shared = Shared(front.http, db, settings.data_dir)
        node = start("node")
        node.plan.hold.touch()
        read = shared.submit()
        wait_until(node.plan.held.exists)
        with outage():
            node.plan.hold.unlink()
            wait_until(node.rendered)
            assert_away(front.http)
            # Longer than a worker may be silent: a beat fails at once on Postgres, after ten seconds on SQLite.
            wait_until(lambda: node.log().count("heartbeat failed") >= (1 if url.startswith("sqlite") else 6))
            assert front.http.get("/livez").status_code == 200
        wait_until(lambda: front.http.get("/datasets").status_code == 200)
        job = shared.end(read)
        assert (job.status, job.attempts, job.progress_done) == ("succeeded", 1, NUM_IMAGES)
        assert shared.files() == shared.rows()

"""Pausing, resuming, priorities and retries, with a worker in this process and a fake kind of job."""

from pathlib import Path

import pytest
from dbos import DBOSClient

from app.db.base import new_id
from app.db.session import Database
from app.errors import Conflict, NotFound
from app.jobs import durable, record
from app.jobs.executions import Executions
from app.jobs.heartbeat import Heartbeat, host_name
from app.jobs.queue import JobQueue
from app.jobs.reaper import Reaper
from testing.pictures import (
    Pictures,
    job_row,
    made,
    recorded_positions,
    submit_pictures,
    wait_for_end,
)
from testing.waiting import wait_until
from tests.unit.jobs.conftest import StartWorker


def wait_for_status(db: Database, job_id: str, status: str) -> None:
    wait_until(lambda: job_row(db, job_id).status == status)


@pytest.mark.parametrize("in_parent", [False, True])
def test_a_running_job_pauses_at_its_next_picture_and_resumes_after_its_recorded_work(
    db: Database, client: DBOSClient, queue: JobQueue, working: StartWorker, tmp_path: Path, in_parent: bool
) -> None:
    folder = tmp_path / "d"
    job_id = submit_pictures(queue, db, folder, num=12, chunk_size=3, stop_at=4, in_parent=in_parent)
    with working():
        wait_until((folder / "reached").exists)
        assert queue.pause(job_id).status == "running"
        version = queue.pause(job_id).version  # asking twice changes nothing
        assert version == job_row(db, job_id).version
        (folder / "go").touch()
        wait_for_status(db, job_id, "paused")
        assert made(folder) == [0, 1, 2, 3, 4]
        assert not client.list_workflows(status=durable.ACTIVE)  # it has no slot and no queue entry
    with working():  # another worker: the pause survives restarts
        wait_for_end(db, submit_pictures(queue, db, tmp_path / "other"))
        assert job_row(db, job_id).status == "paused"
        assert queue.resume(job_id).status == "queued"
        job = wait_for_end(db, job_id)
    assert (job.status, job.attempts, job.progress_done) == ("succeeded", 1, 12)
    assert job.result == {"made": list(range(12))}
    again = [0, 1, 2, 3, 4] if in_parent else [3, 4]  # what was not recorded
    assert sorted(made(folder)) == sorted([*range(12), *again])


def test_a_queued_job_is_paused_at_once_and_leaves_the_queue_when_its_turn_comes(
    db: Database, queue: JobQueue, working: StartWorker, tmp_path: Path
) -> None:
    paused = submit_pictures(queue, db, tmp_path / "paused")
    assert queue.pause(paused).status == "paused"
    with working():
        wait_for_end(db, submit_pictures(queue, db, tmp_path / "later"))
        assert made(tmp_path / "paused") == []
        assert job_row(db, paused).status == "paused"
        queue.resume(paused)
        queue.resume(paused)
        assert wait_for_end(db, paused).status == "succeeded"


def test_a_pause_that_is_withdrawn_at_once_stops_nothing(
    db: Database, queue: JobQueue, working: StartWorker, tmp_path: Path
) -> None:
    folder = tmp_path / "d"
    job_id = submit_pictures(queue, db, folder, stop_at=4)
    with working():
        wait_until((folder / "reached").exists)
        queue.pause(job_id)
        assert queue.resume(job_id).status == "running"
        (folder / "go").touch()
        assert wait_for_end(db, job_id).status == "succeeded"
    assert recorded_positions(db) == list(range(12))


def test_a_paused_job_is_cancelled_at_once_and_for_good(
    db: Database, queue: JobQueue, working: StartWorker, tmp_path: Path
) -> None:
    folder = tmp_path / "d"
    job_id = submit_pictures(queue, db, folder, stop_at=4)
    with working():
        wait_until((folder / "reached").exists)
        queue.pause(job_id)
        (folder / "go").touch()
        wait_for_status(db, job_id, "paused")
        cancelled = queue.cancel(job_id)
        assert cancelled.status == "cancelled"
        for ask in (queue.pause, queue.resume, queue.cancel):
            assert (ask(job_id).status, ask(job_id).version) == ("cancelled", cancelled.version)
        wait_for_end(db, submit_pictures(queue, db, tmp_path / "later"))
    assert made(folder) == [0, 1, 2, 3, 4]


def test_the_reaper_resumes_a_job_whose_resume_did_not_reach_the_engine(
    db: Database, client: DBOSClient, queue: JobQueue, tmp_path: Path
) -> None:
    """The API was killed between its commit and its call to the job engine."""
    job_id = submit_pictures(queue, db, tmp_path / "d")
    workflow_id = durable.job_workflow_id(job_id)
    client.cancel_workflow(workflow_id)  # as a worker detaches it
    with db.transaction() as session:
        record.request_pause(session, job_id)
    reaper = make_reaper(db, client)
    reaper.round()
    assert job_row(db, job_id).status == "paused"
    with db.transaction() as session:
        record.request_resume(session, job_id)
    reaper.round()
    (workflow,) = client.list_workflows(workflow_ids=[workflow_id])
    assert (workflow.status, workflow.queue_name) == ("ENQUEUED", "jobs")
    assert job_row(db, job_id).status == "queued"


def test_a_resumed_job_that_a_stalled_worker_detaches_late_is_requeued(
    db: Database, client: DBOSClient, queue: JobQueue, working: StartWorker, tmp_path: Path
) -> None:
    """The worker read the pause and stalled; another one took over; then the first one detached the workflow."""
    job_id = submit_pictures(queue, db, tmp_path / "d")
    workflow_id = durable.job_workflow_id(job_id)
    queue.pause(job_id)
    queue.resume(job_id)
    with db.transaction() as session:
        record.begin(session, job_id)
    client.cancel_workflow(workflow_id)  # the stalled worker, which crashes before it reads the row again
    make_reaper(db, client).round()
    (workflow,) = client.list_workflows(workflow_ids=[workflow_id])
    assert (workflow.status, job_row(db, job_id).status) == ("ENQUEUED", "running")
    with working():
        assert wait_for_end(db, job_id).status == "succeeded"


def make_reaper(db: Database, client: DBOSClient) -> Reaper:
    kind = Pictures()
    heartbeat = Heartbeat(db, worker_id="me", host=host_name(), ttl_s=20)
    heartbeat.register()
    return Reaper(db, client, heartbeat, kind.on_end, lambda _job: kind.queue, Executions())


def test_an_urgent_job_overtakes_at_the_next_chunk(
    db: Database, queue: JobQueue, working: StartWorker, tmp_path: Path
) -> None:
    long, urgent = tmp_path / "long", tmp_path / "urgent"
    first = submit_pictures(queue, db, long, num=48, chunk_size=3, stop_at=1)
    with working():
        wait_until((long / "reached").exists)
        with db.transaction() as session:
            spec = {**job_row(db, first).spec, "folder": str(urgent), "num": 3, "stop_at": None}
            spec["in_parent"] = False
            urgent.mkdir()
            second = queue.submit(session, kind="pictures", spec=spec, total=3, unit="images", priority=50).id
        wait_until(lambda: job_row(db, second).status == "running")
        wait_until(lambda: is_queued(queue, second))
        (long / "go").touch()
        wait_until(lambda: len(made(urgent)) == 3)
        assert len(made(long)) <= 6  # of 48: the chunk under way, and at most the one claimed meanwhile
        queue.cancel(first)
        wait_for_end(db, first)


def is_queued(queue: JobQueue, job_id: str) -> bool:
    chunk_id = durable.chunk_workflow_id(job_id, 0)
    return any(chunk.status == "ENQUEUED" for chunk in queue._client.list_workflows(workflow_ids=[chunk_id]))


def test_a_failed_job_is_retried_as_a_new_one(
    db: Database, queue: JobQueue, working: StartWorker, tmp_path: Path
) -> None:
    failed = submit_pictures(queue, db, tmp_path / "d")
    with db.transaction() as session, pytest.raises(Conflict) as refused:
        queue.retry(session, failed)
    assert refused.value.code == "job_not_failed"
    queue.cancel(failed)
    with db.transaction() as session:
        retried = queue.retry(session, failed, priority=7)
        retry_id, fields = retried.id, (retried.status, retried.retry_of, retried.priority, retried.spec)
    assert retry_id != failed
    assert fields == ("queued", failed, 7, job_row(db, failed).spec)
    with working():
        assert wait_for_end(db, retry_id).status == "succeeded"
    assert job_row(db, failed).status == "cancelled"


def test_an_unknown_job_can_be_neither_paused_nor_retried(db: Database, queue: JobQueue) -> None:
    with pytest.raises(NotFound):
        queue.pause(new_id())
    with pytest.raises(NotFound):
        queue.resume(new_id())
    with db.transaction() as session, pytest.raises(NotFound):
        queue.retry(session, new_id())

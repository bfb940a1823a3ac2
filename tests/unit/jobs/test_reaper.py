"""Which workers count as dead, and by whose clock; takeovers of real workers are in tests/crash."""

import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from dbos import DBOSClient
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from app.db.base import utc_now
from app.db.models import Job, Worker
from app.db.session import Database
from app.jobs import durable
from app.jobs.executions import Executions
from app.jobs.heartbeat import Heartbeat, host_name
from app.jobs.queue import JobQueue
from app.jobs.reaper import Reaper
from testing.pictures import submit_pictures

TTL_S = 20.0


class Clock:
    """A worker's monotonic clock, in seconds."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def heartbeat(db: Database) -> Heartbeat:
    heartbeat = Heartbeat(db, worker_id="me", host=host_name(), ttl_s=TTL_S)
    heartbeat.register()
    return heartbeat


@pytest.fixture
def executions() -> Executions:
    return Executions()


@pytest.fixture
def reaper(db: Database, client: DBOSClient, heartbeat: Heartbeat, executions: Executions, clock: Clock) -> Reaper:
    def on_end(session: Session, job: Job) -> None: ...

    return Reaper(db, client, heartbeat, on_end, lambda _job: "jobs", executions, clock=clock)


def pass_time(reaper: Reaper, clock: Clock, seconds: float) -> None:
    """Run rounds at a worker's interval for so many seconds."""
    for _ in range(int(seconds / (TTL_S / 4))):
        clock.now += TTL_S / 4
        reaper.round()


def add_worker(db: Database, worker_id: str, *, host: str, pid: int) -> None:
    with db.transaction() as session:
        session.add(Worker(id=worker_id, host=host, pid=pid))


def beat(db: Database, worker_id: str, at: datetime) -> None:
    """Write a heartbeat as of a worker whose clock shows this time."""
    with db.transaction() as session:
        session.get_one(Worker, worker_id).beat_at = at


def workers(db: Database) -> set[str]:
    with db.snapshot() as session:
        return set(session.scalars(select(Worker.id)))


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_worker_on_another_machine_is_alive_within_its_time_to_live(
    db: Database, reaper: Reaper, clock: Clock
) -> None:
    add_worker(db, "far", host="elsewhere", pid=dead_pid())
    pass_time(reaper, clock, TTL_S)
    assert workers(db) == {"me", "far"}


def test_a_worker_without_a_heartbeat_for_its_time_to_live_is_removed(
    db: Database, reaper: Reaper, clock: Clock
) -> None:
    add_worker(db, "far", host="elsewhere", pid=1)
    pass_time(reaper, clock, 1.5 * TTL_S)  # the bound of docs/decisions/0029
    assert workers(db) == {"me"}


@pytest.mark.parametrize("jump", [timedelta(hours=1), timedelta(hours=-1)])
def test_a_clock_change_makes_no_worker_look_dead_or_alive(
    db: Database, reaper: Reaper, clock: Clock, jump: timedelta
) -> None:
    """Of a worker or of the database: a heartbeat is only compared with the one before."""
    add_worker(db, "far", host="elsewhere", pid=1)
    pass_time(reaper, clock, TTL_S / 2)
    for beats in range(8):
        beat(db, "far", utc_now() + jump + timedelta(seconds=beats))
        pass_time(reaper, clock, TTL_S / 2)
    assert workers(db) == {"me", "far"}
    pass_time(reaper, clock, 1.5 * TTL_S)
    assert workers(db) == {"me"}


def test_a_worker_of_this_machine_without_a_process_is_removed_at_once(db: Database, reaper: Reaper) -> None:
    add_worker(db, "near", host=host_name(), pid=dead_pid())
    reaper.round()
    assert workers(db) == {"me"}


def test_a_worker_of_this_machine_with_a_process_is_kept(db: Database, reaper: Reaper) -> None:
    add_worker(db, "near", host=host_name(), pid=os.getppid())
    reaper.round()
    assert workers(db) == {"me", "near"}


def test_an_earlier_worker_with_this_processs_pid_is_dead(db: Database, reaper: Reaper) -> None:
    """In a container every start may have the same pid."""
    add_worker(db, "before", host=host_name(), pid=os.getpid())
    reaper.round()
    assert workers(db) == {"me"}


def test_a_worker_that_was_taken_over_is_lost_at_its_next_heartbeat(db: Database, heartbeat: Heartbeat) -> None:
    heartbeat.beat()
    assert not heartbeat.lost.is_set()
    with db.transaction() as session:
        session.get_one(Worker, "me").pid = os.getppid()
    heartbeat.beat()
    assert heartbeat.lost.is_set()


def test_a_reaper_after_a_gap_of_its_own_declares_no_worker_dead_yet(
    db: Database, reaper: Reaper, clock: Clock
) -> None:
    """After an outage of the database no worker has a recent heartbeat; the first one back must not remove the rest."""
    add_worker(db, "far", host="elsewhere", pid=1)
    pass_time(reaper, clock, TTL_S / 4)
    clock.now += 60
    reaper.round()
    pass_time(reaper, clock, TTL_S / 2)
    assert workers(db) == {"me", "far"}
    pass_time(reaper, clock, TTL_S)
    assert workers(db) == {"me"}


CLAIM = text("UPDATE workflow_status SET status = 'PENDING', executor_id = 'me' WHERE workflow_uuid = :id")
CLAIM_ON_POSTGRES = text(CLAIM.text.replace("workflow_status", "dbos.workflow_status"))


@pytest.fixture
def claimed(db: Database, queue: JobQueue, tmp_path: Path) -> str:
    """A workflow that this worker holds according to the database, without a thread."""
    workflow_id = durable.job_workflow_id(submit_pictures(queue, db, tmp_path / "d"))
    with db.transaction() as session:
        session.execute(CLAIM_ON_POSTGRES if db.engine.dialect.name == "postgresql" else CLAIM, {"id": workflow_id})
    return workflow_id


def state(client: DBOSClient, workflow_id: str) -> str:
    [workflow] = client.list_workflows(workflow_ids=[workflow_id])
    return workflow.status


def test_a_workflow_that_a_worker_holds_without_a_thread_is_requeued(
    reaper: Reaper, client: DBOSClient, clock: Clock, claimed: str
) -> None:
    """As after an outage in which the thread ended, or the answer to the claim was lost."""
    reaper.round()
    pass_time(reaper, clock, TTL_S / 4)
    assert state(client, claimed) == "PENDING"  # it may have been claimed just now
    pass_time(reaper, clock, TTL_S / 4)
    assert state(client, claimed) == "ENQUEUED"


def test_a_workflow_with_a_thread_is_not_requeued(
    reaper: Reaper, client: DBOSClient, clock: Clock, executions: Executions, claimed: str
) -> None:
    reaper.round()
    with executions.held(claimed), executions.held(claimed):
        pass_time(reaper, clock, 2 * TTL_S)
    reaper.round()
    pass_time(reaper, clock, TTL_S / 4)
    assert state(client, claimed) == "PENDING"  # the thread has just ended: its time begins now
    pass_time(reaper, clock, TTL_S / 4)
    assert state(client, claimed) == "ENQUEUED"

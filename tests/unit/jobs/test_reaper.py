"""Who is dead, and who may say so; the taking over itself is in tests/crash."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta

import pytest
from dbos import DBOSClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.base import utc_now
from app.db.models import Job, Worker
from app.db.session import Database
from app.jobs import durable
from app.jobs.reaper import Reaper, host_name


@pytest.fixture
def client(database_url: str) -> Iterator[DBOSClient]:
    client = durable.open_client(database_url, wait_for_database=False)
    yield client
    client.destroy()


@pytest.fixture
def reaper(db: Database, client: DBOSClient) -> Reaper:
    reaper = make_reaper(db, client, "me")
    reaper.register()
    return reaper


def make_reaper(db: Database, client: DBOSClient, worker_id: str) -> Reaper:
    def on_end(session: Session, job: Job) -> None: ...

    return Reaper(db, client, on_end, lambda _job: "jobs", worker_id=worker_id, ttl_s=20)


def add_worker(db: Database, worker_id: str, *, host: str, pid: int, silent_s: float = 0) -> None:
    with db.transaction() as session:
        beat_at = utc_now() - timedelta(seconds=silent_s)
        session.add(Worker(id=worker_id, host=host, pid=pid, started_at=beat_at, beat_at=beat_at))


def workers(db: Database) -> set[str]:
    with db.snapshot() as session:
        return set(session.scalars(select(Worker.id)))


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("silent_s", [0, 15])
def test_a_worker_on_another_machine_lives_within_its_time(db: Database, reaper: Reaper, silent_s: float) -> None:
    add_worker(db, "far", host="elsewhere", pid=dead_pid(), silent_s=silent_s)
    reaper.round()
    assert workers(db) == {"me", "far"}


def test_a_worker_that_was_silent_too_long_is_removed(db: Database, reaper: Reaper) -> None:
    add_worker(db, "far", host="elsewhere", pid=1, silent_s=25)
    reaper.round()
    assert workers(db) == {"me"}


def test_a_neighbour_whose_process_is_gone_is_removed_at_once(db: Database, reaper: Reaper) -> None:
    add_worker(db, "near", host=host_name(), pid=dead_pid())
    reaper.round()
    assert workers(db) == {"me"}


def test_a_neighbour_whose_process_runs_is_left_alone(db: Database, reaper: Reaper) -> None:
    add_worker(db, "near", host=host_name(), pid=os.getppid())
    reaper.round()
    assert workers(db) == {"me", "near"}


def test_a_predecessor_with_my_own_pid_is_dead(db: Database, reaper: Reaper) -> None:
    """In a container every start may have the same pid."""
    add_worker(db, "before", host=host_name(), pid=os.getpid())
    reaper.round()
    assert workers(db) == {"me"}


def test_a_worker_that_was_taken_for_dead_knows_at_its_next_beat(db: Database, reaper: Reaper) -> None:
    with db.transaction() as session:
        session.get_one(Worker, "me").pid = os.getppid()
    reaper.round()
    assert reaper.lost.is_set()


def test_who_was_silent_himself_judges_nobody_yet(db: Database, client: DBOSClient) -> None:
    """After an outage of the database everybody was silent; the first to be back must not bury the rest."""
    back = make_reaper(db, client, "me")
    add_worker(db, "me", host=host_name(), pid=os.getpid(), silent_s=25)
    add_worker(db, "far", host="elsewhere", pid=1, silent_s=25)
    back.round()
    assert workers(db) == {"me", "far"}
    back.round()
    assert workers(db) == {"me"}

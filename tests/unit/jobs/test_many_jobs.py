"""More jobs than a statement takes values: the reaper reads them in pages, and the queue has a limit."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from dbos import DBOSClient
from sqlalchemy import event, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import Pool

from app.db.models import Job
from app.db.session import Database
from app.errors import QueueFull
from app.jobs import durable
from app.jobs.executions import Executions
from app.jobs.heartbeat import Heartbeat, host_name
from app.jobs.queue import JobQueue
from app.jobs.reaper import Reaper
from testing.pictures import Pictures, job_row

# What SQLite takes as it comes; Debian's takes 250,000. Postgres takes 65,535.
SQLITE_VALUES = 32_766
NUM_JOBS = {"sqlite": 33_500, "postgres": 66_000}
# A round's share of the time between two rounds, at most: five seconds by default.
ROUND_S = 2.5


@contextmanager
def sqlite_as_it_comes() -> Iterator[None]:
    """Open SQLite connections with the library's default limit of values in a statement."""

    def bound(connection: Any, _record: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, SQLITE_VALUES)

    event.listen(Pool, "connect", bound)
    yield
    event.remove(Pool, "connect", bound)


def job_id(number: int) -> str:
    return f"00000000-0000-7000-8000-{number:012d}"


def add_jobs(url: str, num: int, *, status: str = "queued") -> None:
    """Add waiting jobs with their workflows, as that many calls of `submit` would."""
    is_sqlite = url.startswith("sqlite")
    numbers = (
        f"WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < {num - 1})"
        if is_sqlite
        else f"WITH numbers AS (SELECT n FROM generate_series(0, {num - 1}) AS n)"
    )
    digits = "printf('%012d', n)" if is_sqlite else "lpad(n::text, 12, '0')"
    identity = f"'00000000-0000-7000-8000-' || {digits}"
    schema = "" if is_sqlite else "dbos."
    no, empty = ("0", "'{}'") if is_sqlite else ("false", "'{}'::jsonb")
    jobs = (
        "INSERT INTO jobs (id, kind, status, spec, progress_done, progress_total, progress_unit, attempts, priority, "
        "cancel_requested, pause_requested, wake_requested, pace, version, created_at) "
        f"{numbers} SELECT {identity}, 'pictures', '{status}', {empty}, 0, 1, 'images', 0, 0, "
        f"{no}, {no}, {no}, '[]', 1, CURRENT_TIMESTAMP FROM numbers"
    )
    workflows = (
        f"INSERT INTO {schema}workflow_status (workflow_uuid, status, name, created_at, updated_at, queue_name, "
        f"priority, application_version, serialization) {numbers} "
        f"SELECT 'job-' || {identity}, 'ENQUEUED', 'job', n, n, 'jobs', 1000, '1', 'portable_json' FROM numbers"
    )
    inputs = (
        f"INSERT INTO {schema}workflow_input (workflow_uuid, inputs, retention_timestamp) {numbers} "
        f"SELECT 'job-' || {identity}, :head || {identity} || :tail, n FROM numbers"
    )
    db = Database(url)
    with db.transaction() as session:
        session.execute(text(jobs))
        session.execute(text(workflows))
        session.execute(text(inputs), {"head": '{"namedArgs":{},"positionalArgs":["', "tail": '"]}'})
    if not is_sqlite:
        with db.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("ANALYZE"))
    db.close()


@pytest.fixture
def many(database_url: str) -> Iterator[tuple[Reaper, DBOSClient, Database, int]]:
    """A reaper among so many jobs that one statement cannot name them."""
    with sqlite_as_it_comes():
        db, client = Database(database_url), durable.JobEngineClient(database_url)
        num = NUM_JOBS["sqlite" if database_url.startswith("sqlite") else "postgres"]
        add_jobs(database_url, num)
        heartbeat = Heartbeat(db, worker_id="me", host=host_name(), ttl_s=20)
        heartbeat.register()

        def on_end(session: Session, job: Job) -> None: ...

        yield Reaper(db, client, heartbeat, on_end, lambda _job: "jobs", Executions()), client, db, num
        client.destroy()
        db.close()


def test_the_reaper_finds_what_ended_among_more_jobs_than_a_statement_takes(
    many: tuple[Reaper, DBOSClient, Database, int],
) -> None:
    reaper, client, db, num = many
    stranded = [job_id(number) for number in (0, 499, 500, num // 2, num - 1)]
    client.cancel_workflows([durable.job_workflow_id(one) for one in stranded])
    longest_s, num_rounds = 0.0, 0
    while job_row(db, stranded[-1]).status == "queued":
        began = time.monotonic()
        reaper.round()
        longest_s, num_rounds = max(longest_s, time.monotonic() - began), num_rounds + 1
        assert num_rounds <= num / 2_000 + 1
    assert {job_row(db, one).status for one in stranded} == {"cancelled"}
    assert job_row(db, job_id(1)).status == "queued"
    assert longest_s < ROUND_S
    client.cancel_workflow(durable.job_workflow_id(job_id(1)))  # behind where it is: the next turn finds it
    for _ in range(2):
        reaper.round()
    assert job_row(db, job_id(1)).status == "cancelled"


def submit(db: Database, queue: JobQueue) -> str:
    with db.transaction() as session:
        return queue.submit(session, kind="pictures", spec={}, total=0, unit="images").id


def test_a_job_too_many_is_refused_until_one_of_those_that_wait_has_gone(db: Database, database_url: str) -> None:
    queue = JobQueue(db, database_url, [Quiet()], max_waiting=3)
    waiting = [submit(db, queue) for _ in range(3)]
    with pytest.raises(QueueFull) as refused:
        submit(db, queue)
    assert (refused.value.status, refused.value.code) == (503, "queue_full")
    assert refused.value.retry_after_s
    queue.pause(waiting[0])
    with pytest.raises(QueueFull):  # else pausing would make room without end
        submit(db, queue)
    queue.cancel(waiting[1])
    submit(db, queue)
    queue.close()


class Quiet(Pictures):
    """A job without a dataset."""

    def on_end(self, session: Session, job: Job) -> None:
        pass


def test_a_full_queue_refuses_a_job_within_half_a_second(db: Database, database_url: str) -> None:
    """Jobs are counted in the index of active jobs alone, up to the limit."""
    add_jobs(database_url, 10_000)
    queue = JobQueue(db, database_url, [Quiet()])
    began = time.monotonic()
    with pytest.raises(QueueFull):
        submit(db, queue)
    assert time.monotonic() - began < 0.5
    queue.close()


def test_selecting_active_jobs_reads_their_index_alone(db: Database, database_url: str) -> None:
    """Jobs that have ended are not read."""
    add_jobs(database_url, 20_000, status="succeeded")
    explain = "EXPLAIN QUERY PLAN" if database_url.startswith("sqlite") else "EXPLAIN"
    statement = (
        "SELECT id FROM jobs WHERE status IN ('queued', 'running', 'paused') AND status != 'running' LIMIT 10000"
    )
    with db.snapshot() as session:
        plan = " ".join(str(row) for row in session.execute(text(f"{explain} {statement}")))
    assert "ix_jobs_active" in plan or "ix_jobs_caller" in plan  # neither has a job that has ended

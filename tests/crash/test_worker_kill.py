"""Worker processes killed with SIGKILL: what was accepted is completed, and nothing is there twice."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from app.db.session import Database
from app.jobs.queue import JobQueue
from testing.pictures import (
    Pictures,
    dataset_status,
    job_row,
    made,
    recorded_positions,
    submit_pictures,
    wait_for_end,
)
from testing.processes import pictures_worker
from testing.waiting import wait_until
from tests.crash.conftest import StartWorker
from tests.crash.house import end, exit_code, pid_of, start


def test_a_killed_worker_costs_at_most_its_chunk(
    db: Database, queue: JobQueue, start_worker: StartWorker, tmp_path: Path
) -> None:
    folder = tmp_path / "d"
    job_id = submit_pictures(queue, db, folder, num=12, chunk_size=3, stop_at=7)
    worker = start_worker()
    wait_until((folder / "reached").exists)
    end(worker)
    before = made(folder)
    (folder / "go").touch()
    start_worker()
    job = wait_for_end(db, job_id)
    assert job.status == "succeeded"
    assert job.result == {"made": list(range(12))}
    assert recorded_positions(db) == list(range(12))
    assert sorted(made(folder)) == sorted([6, *range(12)])
    assert before[-1] == 6
    assert (job.progress_done, job.attempts) == (12, 2)
    assert dataset_status(db, job_id) == "ready"


def test_a_worker_that_wakes_up_after_it_was_taken_for_dead_records_nothing(
    db: Database, queue: JobQueue, start_worker: StartWorker, tmp_path: Path
) -> None:
    folder = tmp_path / "d"
    job_id = submit_pictures(queue, db, folder, num=6, chunk_size=3, stop_at=4)
    sleeper = start_worker()
    wait_until((folder / "reached").exists)
    os.kill(pid_of(sleeper), signal.SIGSTOP)
    (folder / "go").touch()
    start_worker()
    job = wait_for_end(db, job_id)
    os.kill(pid_of(sleeper), signal.SIGCONT)
    assert exit_code(sleeper) == 0  # it noticed, and its supervisor would start it anew
    assert job.status == "succeeded"
    assert recorded_positions(db) == list(range(6))
    assert job_row(db, job_id).version == job.version


def test_a_worker_frozen_within_a_transaction_keeps_its_locks_no_longer_than_it_counts_as_alive(
    postgres_url: str, tmp_path: Path
) -> None:
    """A virtual machine that is suspended, say. SQLite's locks are those of one machine, and of a living process."""
    db = Database(postgres_url)
    queue = JobQueue(db, postgres_url, [Pictures()])
    folder = tmp_path / "d"
    job_id = submit_pictures(queue, db, folder, num=6, chunk_size=3, freeze_at=4)
    workers = [start(pictures_worker, postgres_url)]
    try:
        wait_until((folder / "frozen").exists)
        workers.append(start(pictures_worker, postgres_url))
        assert wait_for_end(db, job_id).status == "succeeded"
        os.kill(pid_of(workers[0]), signal.SIGCONT)
        assert exit_code(workers[0]) == 0
        assert recorded_positions(db) == list(range(6))
    finally:
        for worker in workers:
            end(worker)
        queue.close()
        db.close()


@pytest.mark.parametrize("in_parent", [False, True])
def test_a_job_that_kills_its_worker_is_given_up_after_three_attempts(
    db: Database, queue: JobQueue, start_worker: StartWorker, tmp_path: Path, in_parent: bool
) -> None:
    folder = tmp_path / "d"
    job_id = submit_pictures(queue, db, folder, num=6, chunk_size=3, die_at=4, in_parent=in_parent)
    for _ in range(3):
        assert exit_code(start_worker()) == -signal.SIGKILL
    start_worker()
    job = wait_for_end(db, job_id)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error["code"] == "attempts_exhausted"
    assert job.attempts == 3
    assert (folder / "deaths.log").read_text().split() == ["4"] * 3
    assert recorded_positions(db) == ([] if in_parent else [0, 1, 2])
    assert dataset_status(db, job_id) == "failed"


@pytest.mark.parametrize("in_parent", [False, True])
def test_what_ran_beside_something_that_kills_its_worker_is_not_blamed(
    db: Database, queue: JobQueue, start_worker: StartWorker, tmp_path: Path, in_parent: bool
) -> None:
    """Chunks beside each other, or jobs that work themselves, as those of `POST /generate` do."""
    innocent, deadly = tmp_path / "innocent", tmp_path / "deadly"
    common: dict[str, Any] = {"num": 2, "chunk_size": 2, "in_parent": in_parent}
    innocent_id = submit_pictures(queue, db, innocent, stop_at=1, **common)
    worker = start_worker(chunks_at_once=2)
    wait_until((innocent / "reached").exists)
    deadly_id = submit_pictures(queue, db, deadly, die_at=0, **common)
    assert exit_code(worker) == -signal.SIGKILL
    (innocent / "go").touch()
    assert exit_code(start_worker(chunks_at_once=2)) == -signal.SIGKILL
    assert job_row(db, innocent_id).attempts == 1, "the first death was counted for nobody"
    for _ in range(2):  # it runs alone by now, so that each death is its own
        assert exit_code(start_worker(chunks_at_once=2)) == -signal.SIGKILL
    start_worker(chunks_at_once=2)
    failed, succeeded = wait_for_end(db, deadly_id), wait_for_end(db, innocent_id)
    assert failed.error is not None
    assert failed.error["code"] == "attempts_exhausted"
    assert (deadly / "deaths.log").read_text().split() == ["0"] * 4
    assert succeeded.status == "succeeded"


def test_a_job_cancelled_while_its_worker_is_dead_ends_as_cancelled(
    db: Database, queue: JobQueue, start_worker: StartWorker, tmp_path: Path
) -> None:
    folder = tmp_path / "d"
    job_id = submit_pictures(queue, db, folder, num=12, chunk_size=3, stop_at=4)
    worker = start_worker()
    wait_until((folder / "reached").exists)
    end(worker)
    assert queue.cancel(job_id).status == "running"
    (folder / "go").touch()
    start_worker()
    assert wait_for_end(db, job_id).status == "cancelled"
    assert made(folder) == [0, 1, 2, 3]
    assert dataset_status(db, job_id) == "cancelled"


def test_a_stopped_worker_ends_by_itself_and_another_goes_on(
    db: Database, queue: JobQueue, start_worker: StartWorker, tmp_path: Path
) -> None:
    folder = tmp_path / "d"
    job_id = submit_pictures(queue, db, folder, num=12, chunk_size=3, stop_at=4)
    worker = start_worker()
    wait_until((folder / "reached").exists)
    worker.terminate()
    (folder / "go").touch()
    assert exit_code(worker) == 0
    assert job_row(db, job_id).status == "running"
    start_worker()
    job = wait_for_end(db, job_id)
    assert (job.status, job.attempts) == ("succeeded", 1)
    assert sorted(made(folder)) == recorded_positions(db) == list(range(12))

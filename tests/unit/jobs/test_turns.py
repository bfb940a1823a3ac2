"""Callers share the workers: their chunks take turns, and their jobs begin."""

import heapq
import itertools
from collections import Counter
from pathlib import Path

import pytest

from app.db.session import Database
from app.jobs import durable
from app.jobs.queue import JobQueue
from app.jobs.turns import next_turn
from testing.pictures import job_row, made, submit_pictures, wait_for_end
from testing.waiting import wait_until
from tests.unit.jobs.conftest import StartWorker

AHEAD = 16


class Workers:
    """The queue of chunks as DBOS orders it, and workers that run one chunk after another."""

    def __init__(self, num_at_once: int) -> None:
        self.num_at_once = num_at_once
        self.queued: list[tuple[int, int, str, str]] = []  # turn, order, caller, job
        self.running: list[tuple[int, int, str, str]] = []
        self.last: dict[str, int] = {}
        self.jobs: dict[str, str] = {}
        self.order = itertools.count()
        self.ran: list[str] = []

    def begin(self, caller: str, num_jobs: int = 1) -> None:
        for index in range(num_jobs):
            job = f"{caller} {index} {len(self.jobs)}"
            self.jobs[job] = caller
            for _ in range(AHEAD):
                self.enqueue(job)

    def enqueue(self, job: str) -> None:
        caller = self.jobs[job]
        turn = next_turn(
            self.last.get(job),
            running=[chunk[0] for chunk in self.running],
            queued=[chunk[0] for chunk in self.queued],
            num_jobs=sum(other == caller for other in self.jobs.values()),
            ahead=AHEAD,
        )
        self.last[job] = turn
        heapq.heappush(self.queued, (turn, next(self.order), caller, job))

    def run(self, num_chunks: int) -> Counter[str]:
        """Run chunks to their end; each job enqueues another one for each."""
        before = len(self.ran)
        for _ in range(num_chunks):
            while self.queued and len(self.running) < self.num_at_once:
                self.running.append(heapq.heappop(self.queued))
            *_, caller, job = self.running.pop(0)
            self.ran.append(caller)
            self.enqueue(job)
        return Counter(self.ran[before:])


@pytest.mark.parametrize("num_at_once", [1, 2, 8])
@pytest.mark.parametrize("num_jobs", [1, 3, 9])
def test_a_caller_with_one_job_gets_as_many_chunks_as_one_with_many(num_at_once: int, num_jobs: int) -> None:
    workers = Workers(num_at_once)
    workers.begin("many", num_jobs)
    workers.run(500)
    workers.begin("one")

    assert workers.run(400)["one"] == pytest.approx(200, rel=0.1)


def test_the_first_chunk_of_a_new_job_waits_for_few_others() -> None:
    workers = Workers(2)
    workers.begin("many", 9)
    workers.run(100)
    workers.begin("one")

    assert workers.run(6)["one"] >= 1


def test_three_callers_share_evenly_and_a_lone_one_has_everything() -> None:
    workers = Workers(2)
    for caller, num_jobs in (("a", 1), ("b", 4), ("c", 9)):
        workers.begin(caller, num_jobs)
    workers.run(100)
    assert workers.run(600) == pytest.approx({"a": 200, "b": 200, "c": 200}, rel=0.1)


def test_turns_that_began_again_at_zero_put_no_job_behind_others() -> None:
    assert next_turn(5_000, running=[], queued=[], num_jobs=1, ahead=AHEAD) == AHEAD
    assert next_turn(None, running=[], queued=[], num_jobs=1, ahead=AHEAD) == 0


def test_priorities_come_before_turns() -> None:
    order = [(100, 5), (100, 10**7), (1, 0), (0, 0), (0, 1), (-100, 0)]
    priorities = [durable.dbos_priority(priority, turn) for priority, turn in order]
    assert priorities == sorted(priorities)
    assert len(set(priorities)) == len(order)
    assert priorities[0] >= 1
    assert priorities[-1] < 2**31


def test_a_job_of_another_caller_begins_beside_any_number_of_jobs(
    db: Database, queue: JobQueue, working: StartWorker, tmp_path: Path
) -> None:
    folders = [tmp_path / f"many-{index}" for index in range(durable.QUEUES[durable.JOB_QUEUE] + 3)]
    many = [submit_pictures(queue, db, folder, caller="many", num=60, chunk_size=1) for folder in folders]
    with working():
        wait_until(lambda: len(made(folders[0])) >= 3)
        one = submit_pictures(queue, db, tmp_path / "one", caller="one", num=3, chunk_size=1)
        assert wait_for_end(db, one).status == "succeeded"
        statuses = Counter(job_row(db, job_id).status for job_id in many)
        chunks = sum(len(made(folder)) for folder in folders)
        for job_id in many:
            queue.cancel(job_id)
        for job_id in many:
            wait_for_end(db, job_id)
    assert statuses["queued"] > 0, "some of the many had not begun"
    assert chunks < 60 * len(folders) // 4


def test_the_second_job_of_each_caller_begins_before_the_third_of_any(
    db: Database, queue: JobQueue, client: durable.JobEngineClient, tmp_path: Path
) -> None:
    ids = {
        submit_pictures(queue, db, tmp_path / f"{caller}-{index}", caller=caller): f"{caller}{index}"
        for caller, index in (("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2))
    }
    workflows = client.list_workflows(status="ENQUEUED")
    by_queue: dict[str, list[str]] = {}
    for workflow in sorted(workflows, key=lambda workflow: (workflow.priority, workflow.created_at)):
        by_queue.setdefault(str(workflow.queue_name), []).append(ids[durable.job_id_of(workflow)])

    assert by_queue == {"first": ["a1", "b1"], "jobs": ["a2", "b2", "a3"]}
    assert {job_row(db, job_id).caller for job_id in ids} == {"a", "b"}

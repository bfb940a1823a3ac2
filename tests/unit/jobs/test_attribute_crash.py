"""Which workflow a crash is attributed to; workers that really crash are in tests/crash/test_worker_kill.py."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dbos import DBOSClient, WorkflowStatus

from app.db.models import Job
from app.db.session import Database
from app.jobs import durable
from app.jobs.attribute_crash import MAX_ATTEMPTS, attribute_crash
from app.jobs.queue import JobQueue
from testing.pictures import job_row, submit_pictures


def workflow(client: DBOSClient, job_id: str) -> WorkflowStatus:
    [found] = client.list_workflows(workflow_ids=[durable.job_workflow_id(job_id)])
    return found


def attributes(client: DBOSClient, job_id: str) -> dict[str, Any]:
    return workflow(client, job_id).attributes or {}


def crash(db: Database, client: DBOSClient, job_ids: Sequence[str], *, alone: str | None = None) -> None:
    """Let a worker crash that holds these jobs, one of which it has begun to run alone."""
    if alone is not None:
        client.update_workflow_attributes(
            durable.job_workflow_id(alone), {**attributes(client, alone), durable.SUSPECT: True, durable.ALONE: True}
        )
    attribute_crash(db, client, [workflow(client, job_id) for job_id in job_ids])


def test_the_only_job_that_a_worker_held_fails_after_three_crashes(
    db: Database, queue: JobQueue, client: DBOSClient, tmp_path: Path
) -> None:
    job_id = submit_pictures(queue, db, tmp_path / "d")
    for num_crashes in range(1, MAX_ATTEMPTS + 1):
        assert job_row(db, job_id).error is None
        crash(db, client, [job_id])
        assert job_row(db, job_id).attempts == min(num_crashes + 1, MAX_ATTEMPTS)
    error = job_row(db, job_id).error
    assert error is not None
    assert error["code"] == "attempts_exhausted"


def test_a_crash_with_several_jobs_counts_for_none_and_makes_each_a_suspect(
    db: Database, queue: JobQueue, client: DBOSClient, tmp_path: Path
) -> None:
    job_ids = [submit_pictures(queue, db, tmp_path / name) for name in ("a", "b", "c")]
    for _ in range(MAX_ATTEMPTS + 1):
        crash(db, client, job_ids)
    assert [(job_row(db, job_id).attempts, job_row(db, job_id).error) for job_id in job_ids] == [(0, None)] * 3
    assert all(attributes(client, job_id) == {durable.SUSPECT: True, durable.ALONE: False} for job_id in job_ids)


def test_a_crash_counts_for_the_job_that_ran_alone_and_for_none_beside_it(
    db: Database, queue: JobQueue, client: DBOSClient, tmp_path: Path
) -> None:
    """Beside it there may be a job whose last chunk has ended and which has not read the result yet."""
    innocent, deadly = (submit_pictures(queue, db, tmp_path / name) for name in ("innocent", "deadly"))
    for _ in range(MAX_ATTEMPTS):
        crash(db, client, [innocent, deadly], alone=deadly)
    assert job_row(db, deadly).error is not None
    assert (job_row(db, innocent).attempts, job_row(db, innocent).error) == (0, None)
    assert not attributes(client, innocent).get(durable.SUSPECT)


def test_progress_starts_a_new_count_of_crashes(
    db: Database, queue: JobQueue, client: DBOSClient, tmp_path: Path
) -> None:
    job_id = submit_pictures(queue, db, tmp_path / "d")
    for progress in range(MAX_ATTEMPTS + 1):
        crash(db, client, [job_id])
        with db.transaction() as session:
            session.get_one(Job, job_id).progress_done = progress + 1
    assert job_row(db, job_id).error is None

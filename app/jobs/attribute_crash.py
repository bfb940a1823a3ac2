"""Decides which of a crashed worker's workflows caused the crash, and fails a job that causes too many.

Of several that ran side by side any may be the cause, so no crash is counted: each of them then runs alone
(`Isolation`), and a crash during such a run is attributed to it. Runs in the worker process, on the reaper's thread.
"""

from collections.abc import Sequence

from dbos import DBOSClient, WorkflowStatus
from sqlalchemy import update

from app.db.models import Job
from app.db.session import Database
from app.error_codes import ErrorCode
from app.jobs import durable, record
from app.jobs.signals import JobFailed

# Crashes attributed to one workflow after which its job fails.
MAX_ATTEMPTS = 3

_EXHAUSTED = JobFailed(
    f"The job was given up after {MAX_ATTEMPTS} attempts that ended with their worker.",
    code=ErrorCode.ATTEMPTS_EXHAUSTED,
)


def attribute_crash(db: Database, client: DBOSClient, held: Sequence[WorkflowStatus]) -> None:
    """Count a crash for the only workflow that worked, or for the one that ran alone; else mark all as suspects.

    A job that waits for its chunks is no candidate.

    Args:
        db: The database of the job rows.
        client: The job engine.
        held: The workflows that the worker held, with their input.
    """
    working = [each for each in held if each.name == durable.CHUNK_WORKFLOW or not _has_chunks(client, each)]
    alone = [each for each in working if (each.attributes or {}).get(durable.ALONE)]
    candidates = alone or working
    if len(candidates) == 1:
        _count_crash(db, client, candidates[0])
        return
    for workflow in candidates:
        _mark_suspect(client, workflow, workflow.attributes or {})


def _count_crash(db: Database, client: DBOSClient, workflow: WorkflowStatus) -> None:
    """Count a crash, and fail the job at the limit; a job without chunks starts a new count with each progress."""
    job_id = durable.job_id_of(workflow)
    with db.snapshot() as session:
        job = session.get(Job, job_id)
    if job is None:
        return
    before = workflow.attributes or {}
    progress = job.progress_done if workflow.name == durable.JOB_WORKFLOW else None
    num_crashes = 1 + (before.get("deaths", 0) if before.get("progress") == progress else 0)
    _mark_suspect(client, workflow, {"deaths": num_crashes, "progress": progress})
    with db.transaction() as session:
        attempts = min(num_crashes + 1, MAX_ATTEMPTS)
        session.execute(
            update(Job)
            .where(Job.id == job_id, Job.attempts < attempts)
            .values(attempts=attempts, version=Job.version + 1)
        )
        if num_crashes >= MAX_ATTEMPTS:
            record.mark_failing(session, job_id, record.problem_of(_EXHAUSTED))


def _mark_suspect(client: DBOSClient, workflow: WorkflowStatus, attributes: dict[str, object]) -> None:
    """Let a workflow run alone from now on."""
    client.update_workflow_attributes(workflow.workflow_id, {**attributes, durable.SUSPECT: True, durable.ALONE: False})


def _has_chunks(client: DBOSClient, parent: WorkflowStatus) -> bool:
    return bool(
        client.list_workflows(
            parent_workflow_id=parent.workflow_id,
            status=durable.ACTIVE,
            limit=1,
            load_input=False,
            load_output=False,
        )
    )

"""Which of the things that a dead worker held its death is put down to, and when a job is given up for it.

Of several that ran side by side any may be why, so none is blamed: each is tried alone (`Isolation`), and a worker that
dies over one that is alone died of it. Runs in the worker process, on the reaper's thread.
"""

from collections.abc import Sequence

from dbos import DBOSClient, WorkflowStatus
from sqlalchemy import update

from app.db.models import Job
from app.db.session import Database
from app.error_codes import ErrorCode
from app.jobs import durable, record
from app.jobs.handler import JobFailed

# A part of a job whose worker died this many times over it is taken to be the cause.
MAX_ATTEMPTS = 3

_EXHAUSTED = JobFailed(
    f"The job was given up after {MAX_ATTEMPTS} attempts that ended with their worker.",
    code=ErrorCode.ATTEMPTS_EXHAUSTED,
)


def blame(db: Database, client: DBOSClient, held: Sequence[WorkflowStatus]) -> None:
    """Count a worker's death for the only thing that it did, or the one that ran alone; else suspect all of them.

    A job whose chunks are under way only waits, and is no reason.

    Args:
        db: Where the job rows are.
        client: The job engine.
        held: What the worker held, with its input.
    """
    working = [each for each in held if each.name == durable.CHUNK_WORKFLOW or not _has_chunks(client, each)]
    alone = [each for each in working if (each.attributes or {}).get(durable.ALONE)]
    reasons = alone or working
    if len(reasons) == 1:
        _count_death(db, client, reasons[0])
        return
    for workflow in reasons:
        _note(client, workflow, workflow.attributes or {})


def _count_death(db: Database, client: DBOSClient, workflow: WorkflowStatus) -> None:
    """Doom the job when it killed its worker too often; one that works itself begins a new count with each progress."""
    job_id = durable.job_id_of(workflow)
    with db.snapshot() as session:
        job = session.get(Job, job_id)
    if job is None:
        return
    noted = workflow.attributes or {}
    progress = job.progress_done if workflow.name == durable.JOB_WORKFLOW else None
    deaths = 1 + (noted.get("deaths", 0) if noted.get("progress") == progress else 0)
    _note(client, workflow, {"deaths": deaths, "progress": progress})
    with db.transaction() as session:
        again = min(deaths + 1, MAX_ATTEMPTS)
        session.execute(
            update(Job).where(Job.id == job_id, Job.attempts < again).values(attempts=again, version=Job.version + 1)
        )
        if deaths >= MAX_ATTEMPTS:
            record.doom(session, job_id, record.problem_of(_EXHAUSTED))


def _note(client: DBOSClient, workflow: WorkflowStatus, noted: dict[str, object]) -> None:
    """Have a workflow run alone from now on."""
    client.update_workflow_attributes(workflow.workflow_id, {**noted, durable.SUSPECT: True, durable.ALONE: False})


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

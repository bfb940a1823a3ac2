"""What every process agrees on with DBOS: names, queues, the version of our workflows, JSON and no pickle.

Knows nothing of handlers or of the job row.
"""

import logging

from dbos import DBOSClient, DBOSPortableJSONSerializer, WorkflowStatus

from app.db.session import IDLE_TRANSACTION_S, database_url

# Raised only when the recorded order of steps changes; jobs in flight belong to the version that began them.
JOBS_VERSION = "1"
APPLICATION = "foxhound"
SCHEMA = "dbos"
JOB_WORKFLOW = "job"
CHUNK_WORKFLOW = "chunk"

# How many workflows of a queue one worker runs at a time, chunks apart. Parents wait more than they work.
CHUNK_QUEUE = "chunks"
QUEUES = {"jobs": 8, "generate": 4}

# One chunk keeps the node's engine busy, and while it is scored, recorded and the next one is found, so does the other.
CHUNKS_AT_ONCE = 2

# Of a workflow: a worker died while it held it, and it runs by itself now, so that the next death would be its own.
SUSPECT, ALONE = "suspect", "alone"

# A job's priority is the wish of its users, higher first; the engine's is a place in the queue, lower first
# and >= 1. 0 is what releases without priorities write, so that theirs come first while both run.
_NORMAL_PLACE = 1_000

# Plain JSON: whoever can write the database must not be able to run code in a worker.
SERIALIZER = DBOSPortableJSONSerializer()

ACTIVE = ["ENQUEUED", "PENDING"]
ENDED = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]


def job_workflow_id(job_id: str) -> str:
    """Return the id of a job's parent workflow."""
    return f"job-{job_id}"


def chunk_workflow_id(job_id: str, index: int) -> str:
    """Return the id of the workflow of a job's chunk, counted from 0."""
    return f"job-{job_id}-c{index}"


def job_id_of(workflow: WorkflowStatus) -> str:
    """Return the id of the job that a workflow, listed with its input, belongs to."""
    assert workflow.input is not None
    job_id: str = workflow.input["args"][0]
    return job_id


def place(priority: int) -> int:
    """Return the job engine's priority of a job's; a job's chunks have the same."""
    return _NORMAL_PLACE - priority


def engine_url(url: str) -> str:
    """Return a database URL as DBOS takes it, password included."""
    return database_url(url).render_as_string(hide_password=False)


def open_client(url: str, *, wait_for_database: bool, idle_transaction_s: float = IDLE_TRANSACTION_S) -> DBOSClient:
    """Open a connection to the job engine's tables that runs no workflow itself.

    Args:
        url: The database of the job rows.
        wait_for_database: Whether a lost database is waited for; else it raises.
        idle_transaction_s: As of `make_db_engine`.
    """
    quiet_logging()
    return DBOSClient(
        system_database_url=engine_url(url),
        dbos_system_schema=SCHEMA,
        serializer=SERIALIZER,
        application_name=APPLICATION,
        lazy=True,
        retry_connection_errors=wait_for_database,
        sys_db_idle_transaction_timeout_sec=idle_transaction_s,
    )


def quiet_logging() -> None:
    """Leave DBOS's log to our handlers, from warnings up: a handler in place keeps it from adding its own."""
    logger = logging.getLogger("dbos")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    logger.setLevel(logging.WARNING)

"""What every process agrees on with DBOS: names, queues, the version of our workflows, the JSON serializer.

Imports neither handlers nor the job row. Any thread may use it.
"""

import logging
from collections.abc import Iterable

from dbos import DBOSClient, DBOSPortableJSONSerializer, WorkflowStatus
from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext

from app.db.outages import as_app_error
from app.db.session import IDLE_TRANSACTION_S, close_db_engine, database_url, make_db_engine
from app.errors import AppError

# Increased only when the recorded order of steps changes; a job in flight belongs to the version that began it.
JOBS_VERSION = "1"
APPLICATION = "foxhound"
SCHEMA = "dbos"
JOB_WORKFLOW = "job"
CHUNK_WORKFLOW = "chunk"

# Workflows of each queue that one worker runs at a time, chunks not included. Parents mostly wait.
# A job whose caller has no other one on `jobs` goes to `first`, so that it begins beside any number of others' jobs.
CHUNK_QUEUE = "chunks"
JOB_QUEUE, FIRST_QUEUE = "jobs", "first"
QUEUES = {JOB_QUEUE: 8, FIRST_QUEUE: 16, "generate": 4}

# Two, so that the engine has work from one chunk while the other is scored and recorded, or the next is claimed.
CHUNKS_AT_ONCE = 2

# Attributes of a workflow. SUSPECT: a worker crashed while it held the workflow, which has to run alone from now on.
# ALONE: it runs alone now, so that a crash would be attributed to it.
SUSPECT, ALONE = "suspect", "alone"

# The job engine's priority of a job with priority 0, without its turn. A job's priority is higher first; the engine's
# is lower first, >= 1 and of 31 bits. Releases without turns write at most 1,100, so their jobs come first while both
# releases run.
_NORMAL_PRIORITY = 1_000

# Turns of one priority; more are in the order of submission.
_NUM_TURNS = 1_000_000

# Plain JSON, no pickle: write access to the database must not allow running code in a worker.
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


def dbos_priority(priority: int, turn: int) -> int:
    """Convert the priority of a job or chunk, -100 .. 100, and its turn, >= 0, to the job engine's."""
    return (_NORMAL_PRIORITY - priority) * _NUM_TURNS + min(turn, _NUM_TURNS - 1)


def turns_of(chunks: Iterable[WorkflowStatus], priority: int, status: str) -> list[int]:
    """Return the turns of the chunks of a job's priority that have a status."""
    first = dbos_priority(priority, 0)
    priorities = [chunk.priority for chunk in chunks if chunk.status == status and chunk.priority is not None]
    return [found - first for found in priorities if first <= found < first + _NUM_TURNS]


def engine_url(url: str) -> str:
    """Return a database URL in the form that DBOS takes, password included."""
    return database_url(url).render_as_string(hide_password=False)


def open_engine(url: str, *, pool_size: int, idle_transaction_s: float = IDLE_TRANSACTION_S) -> Engine:
    """Open the job engine's connection pool, with our limits and our classification of outages.

    DBOS takes a host name that does not resolve, and a full disk under SQLite, for no outage: the thread of a workflow
    would end, or the outage would be recorded as the job's failure.

    Args:
        url: The database of the job rows.
        pool_size: As of `make_db_engine`.
        idle_transaction_s: As of `make_db_engine`.
    """
    return make_db_engine(url, pool_size=pool_size, idle_transaction_s=idle_transaction_s, locks_at_begin=False)


class JobEngineClient(DBOSClient):
    """A connection to the job engine's tables that runs no workflow itself; in an outage it raises without retries.

    Its methods raise, besides what DBOS does:
        DatabaseUnavailable, DatabaseFull: As `app.db.session.translated` says.
        sqlalchemy.exc.TimeoutError: Every connection is in use; an outage too, by `app.db.outages.is_outage`.
    """

    def __init__(self, url: str, *, idle_transaction_s: float = IDLE_TRANSACTION_S) -> None:
        """Describe the connection; nothing is connected yet.

        Args:
            url: The database of the job rows.
            idle_transaction_s: As of `make_db_engine`.
        """
        quiet_logging()
        self._connections = open_engine(url, pool_size=5, idle_transaction_s=idle_transaction_s)
        # Without this DBOS retries SQLite's "database is locked" without end, whatever its settings.
        event.listen(self._connections, "handle_error", _as_app_error)
        super().__init__(
            system_database_engine=self._connections,
            dbos_system_schema=SCHEMA,
            serializer=SERIALIZER,
            application_name=APPLICATION,
            lazy=True,
            retry_connection_errors=False,
        )

    def destroy(self) -> None:
        """Close the connections."""
        super().destroy()
        close_db_engine(self._connections)


def quiet_logging() -> None:
    """Send DBOS's log, from warnings up, to our handlers; DBOS adds none of its own where it finds a handler."""
    logger = logging.getLogger("dbos")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    logger.setLevel(logging.WARNING)


def _as_app_error(context: ExceptionContext) -> AppError | None:
    return as_app_error(context.original_exception)

"""What every process agrees on with DBOS: names, queues, the version of our workflows, JSON and no pickle.

Knows nothing of handlers or of the job row.
"""

import logging

from dbos import DBOSClient, DBOSPortableJSONSerializer, WorkflowStatus
from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext

from app.db.outages import as_app_error
from app.db.session import IDLE_TRANSACTION_S, database_url, make_db_engine
from app.errors import AppError

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


def open_engine(url: str, *, pool_size: int, idle_transaction_s: float = IDLE_TRANSACTION_S) -> Engine:
    """Open the job engine's connections: with our bounds, and so that it sees every outage for what it is.

    Its own judgement misses a name that does not resolve, and SQLite's disk being full: the thread of a workflow would
    end over it, or the outage be recorded as the work's failure.

    Args:
        url: The database of the job rows.
        pool_size: As of `make_db_engine`.
        idle_transaction_s: As of `make_db_engine`.
    """
    return make_db_engine(url, pool_size=pool_size, idle_transaction_s=idle_transaction_s, locks_at_begin=False)


def close_engine(db_engine: Engine) -> None:
    """Close the job engine's connections, and those that threads of it still use as soon as they give them back."""
    event.listen(db_engine.pool, "checkin", lambda _connection, record: record.invalidate())
    db_engine.dispose()


class JobEngineClient(DBOSClient):
    """A connection to the job engine's tables that runs no workflow itself; in an outage it raises, soon.

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
        # The job engine itself waits for SQLite's lock without end, whatever it is told.
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
        close_engine(self._connections)


def quiet_logging() -> None:
    """Leave DBOS's log to our handlers, from warnings up: a handler in place keeps it from adding its own."""
    logger = logging.getLogger("dbos")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    logger.setLevel(logging.WARNING)


def _as_app_error(context: ExceptionContext) -> AppError | None:
    return as_app_error(context.original_exception)

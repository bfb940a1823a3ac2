"""The job engine's implementation of `JobContext`: recorded steps, transactions, chunks and cancellation.

`WorkerContext` is what all executions of a worker process share, `JobExecution` one execution of a job or of a chunk.
Imports no kind of job. Runs in the worker process, on the thread of the workflow.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

from dbos import DBOS, DBOSClient, PortableWorkflowError, SQLAlchemyDatasource, WorkflowStatus
from sqlalchemy import Select, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.db.models import Job
from app.db.outages import is_outage
from app.db.session import Database
from app.errors import AppError, DatabaseFull, DatabaseUnavailable
from app.jobs import durable, record
from app.jobs.executions import Executions
from app.jobs.isolation import Isolation
from app.jobs.signals import JobCancelled, JobPaused, Json, LeaseLost, Requeue
from app.jobs.turns import next_turn
from app.tracing.spans import NO_TRACING, Tracing

logger = logging.getLogger(__name__)

# Chunks of one job that are queued or running at a time: enough for eight workers, and few enough that the chunks
# of a second job start soon.
CHUNKS_AHEAD = 16


class Failure(Exception):
    """A handler's error in the form that is recorded: its problem. DBOS stores `data` and returns it on replay."""

    def __init__(self, problem: dict[str, Json]) -> None:
        super().__init__(problem["detail"])
        self.data = problem


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """What all executions in one worker process share.

    Attributes:
        db: The database of the job rows.
        datasource: Runs transactions that commit with their record.
        client: The job engine.
        poll_s: Time between two reads of a job's chunks, in seconds.
        worker_id: The worker's id, the executor id of the workflows that it holds.
        own_row: Selects the worker's row until another worker takes it over.
        stopping: Set when the worker takes no new work; a workflow that only waits is requeued.
        leaving: Set when the grace period is over; every workflow is requeued.
        isolation: The chunks and steps that run in this process now.
        executions: The workflows that have a thread in this process.
        tracing: Makes spans of jobs and chunks.
    """

    db: Database
    datasource: SQLAlchemyDatasource
    client: DBOSClient
    poll_s: float
    worker_id: str
    own_row: Select[str]
    stopping: threading.Event
    leaving: threading.Event
    isolation: Isolation = field(default_factory=Isolation)
    executions: Executions = field(default_factory=Executions)
    tracing: Tracing = NO_TRACING

    @contextmanager
    def isolated(self, keep_waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Run the block beside other workflows, or alone if this workflow is a suspect, see `attribute_crash.py`.

        Args:
            keep_waiting: Called while waiting for other workflows; raises to give up.

        Raises:
            Requeue: The worker is stopping before the block could begin.
        """
        workflow_id = DBOS.workflow_id
        assert workflow_id is not None
        [workflow] = self.client.list_workflows(workflow_ids=[workflow_id], load_input=False, load_output=False)
        attributes = workflow.attributes or {}
        is_suspect = bool(attributes.get(durable.SUSPECT))

        def check() -> None:
            if self.stopping.is_set():
                raise Requeue
            keep_waiting()

        with self.isolation.held(is_suspect=is_suspect, keep_waiting=check):
            if not is_suspect:
                yield
                return
            self.client.update_workflow_attributes(workflow_id, {**attributes, durable.ALONE: True})
            try:
                yield
            finally:  # before another workflow begins, whose crash must not be attributed to this one
                self.client.update_workflow_attributes(workflow_id, {**attributes, durable.ALONE: False})


class JobExecution:
    """One execution of a job or of one of its chunks; the methods that a handler uses are described in `JobContext`.

    Attributes:
        id: The job's id.
        spec: What was submitted.
        caller: Who submitted it.
    """

    def __init__(self, job: Job, worker: WorkerContext, *, is_isolated: bool = False) -> None:
        """Begin an execution.

        Args:
            job: The job's row.
            worker: What it shares with the other executions.
            is_isolated: Whether the execution runs as one isolated block, as a chunk does; else each step is one.
        """
        self.id = job.id
        self.spec: dict[str, Json] = job.spec
        self.caller = job.caller
        self._priority = job.priority
        self._last_turn: int | None = None
        self._worker = worker
        self._is_isolated = is_isolated
        self._num_chunks = 0

    @property
    def is_stopping(self) -> bool:
        """Whether the worker is shutting down."""
        return self._worker.stopping.is_set()

    def step(self, name: str, fn: Callable[[], Json]) -> Json:
        """Run a function and record what it returns."""

        def body() -> Json:
            try:
                with nullcontext() if self._is_isolated else self._worker.isolated(self.check_cancelled):
                    self.check_cancelled()
                    return fn()
            except Exception as error:
                raise _as_recorded(error) from error

        return _recorded(lambda: DBOS.run_step({"name": name}, body))

    def transaction(self, name: str, fn: Callable[[Session], Json]) -> Json:
        """Run a function in a database transaction that commits together with its record."""
        datasource = self._worker.datasource

        def body() -> Json:
            session = datasource.sql_session()
            if record.must_stop(session.get(Job, self.id, populate_existing=True)):
                raise JobCancelled
            try:
                return fn(session)
            except DBAPIError:  # DBOS retries those that a retry can resolve
                raise
            except Exception as error:
                raise _as_recorded(error) from error

        # Constraints and locks protect the rows, so READ COMMITTED is enough; SQLite has SERIALIZABLE alone.
        serializable = datasource.engine.dialect.name == "sqlite"
        return _recorded(
            lambda: datasource.run_tx_step(
                {"name": name, "isolation_level": "SERIALIZABLE" if serializable else "READ COMMITTED"}, body
            )
        )

    def chunks(self, items: Sequence[Json]) -> list[Json]:
        """Hand every item to `run_chunk`, on any worker, and return the results in the items' order."""
        results: list[Json] = [None] * len(items)
        waiting: dict[str, int] = {}
        for position, item in enumerate(items):
            while len(waiting) >= CHUNKS_AHEAD:
                self._collect(waiting, results)
            waiting[self._enqueue_chunk(item)] = position
        while waiting:
            self._collect(waiting, results)
        return results

    def check_cancelled(self) -> None:
        """Return if the work may go on; else raise."""
        job = self._read_job()
        if record.must_stop(job):
            raise JobCancelled
        if record.should_pause(job):
            raise JobPaused

    def check_held(self) -> None:
        """Return if this worker still holds the work; else raise."""
        self._read_job()

    def drain(self) -> None:
        """Wait until no chunk of a stopped or paused job runs any more; queued ones are cancelled in the job engine."""
        client = self._worker.client
        parent_id = durable.job_workflow_id(self.id)
        while active := client.list_workflows(
            parent_workflow_id=parent_id, status=durable.ACTIVE, load_input=False, load_output=False
        ):
            # A chunk that is claimed meanwhile reads the job's row before it does anything, so this is safe.
            client.cancel_workflows([chunk.workflow_id for chunk in active if chunk.status == "ENQUEUED"])
            self._wait()

    def _read_job(self) -> Job | None:
        if self._worker.leaving.is_set():
            raise Requeue
        try:
            with self._worker.db.snapshot() as session:
                job, own_row = session.get(Job, self.id), session.scalar(self._worker.own_row)
        except (DatabaseUnavailable, DatabaseFull) as error:
            raise Requeue from error
        if own_row is None:
            raise LeaseLost
        return job

    def _enqueue_chunk(self, item: Json) -> str:
        workflow_id = durable.chunk_workflow_id(self.id, self._num_chunks)
        self._num_chunks += 1
        self._last_turn = self._next_turn()
        DBOS.enqueue_workflow_with_options(
            {
                "workflow_name": durable.CHUNK_WORKFLOW,
                "queue_name": durable.CHUNK_QUEUE,
                "workflow_id": workflow_id,
                "app_version": durable.JOBS_VERSION,
                "priority": durable.dbos_priority(self._priority, self._last_turn),
            },
            self.id,
            item,
        )
        return workflow_id

    def _next_turn(self) -> int:
        """Return the turn of the next chunk. It is no part of the recorded work: a replay may compute another one."""
        with self._worker.db.snapshot() as session:
            running = select(func.count()).where(Job.caller == self.caller, Job.status == "running")
            num_jobs = session.scalar(running) or 0
        chunks = self._worker.client.list_workflows(
            queue_name=durable.CHUNK_QUEUE, status=durable.ACTIVE, load_input=False, load_output=False
        )
        return next_turn(
            self._last_turn,
            running=durable.turns_of(chunks, self._priority, "PENDING"),
            queued=durable.turns_of(chunks, self._priority, "ENQUEUED"),
            num_jobs=max(1, num_jobs),
            ahead=CHUNKS_AHEAD,
        )

    def _collect(self, waiting: dict[str, int], results: list[Json]) -> None:
        ended = self._worker.client.list_workflows(workflow_ids=list(waiting), status=durable.ENDED, load_input=False)
        detached = [chunk.workflow_id for chunk in ended if chunk.status == "CANCELLED"]
        for chunk in ended:
            if chunk.status != "CANCELLED":
                results[waiting.pop(chunk.workflow_id)] = _chunk_result(chunk)
        if detached or not ended:
            self._wait()
            self.check_cancelled()
        if detached:  # while the job was paused; it has been resumed
            self._worker.client.resume_workflows(detached, queue_name=durable.CHUNK_QUEUE)

    def _wait(self) -> None:
        if self._worker.stopping.wait(self._worker.poll_s):
            raise Requeue


def problem_of(error: Exception) -> dict[str, Json]:
    """Describe a handler's exception as a problem; the text of an unexpected one goes to the log alone."""
    if isinstance(error, Failure):
        return error.data
    if isinstance(error, AppError):
        return record.problem_of(error)
    logger.error("A job failed unexpectedly.", exc_info=error)
    return record.problem_of(AppError("The job failed for an internal reason."))


def _as_recorded(error: Exception) -> BaseException:
    """Return the exception that a step or transaction ends with: a recorded failure, or a requeue in an outage."""
    return Requeue() if is_outage(error) else Failure(problem_of(error))


def _recorded(call: Callable[[], Json]) -> Json:
    try:
        return call()
    except PortableWorkflowError as error:  # a recorded failure, replayed
        raise Failure(error.data if isinstance(error.data, dict) else problem_of(error)) from None


def _chunk_result(chunk: WorkflowStatus) -> Json:
    if chunk.status != "SUCCESS" or chunk.output is None:
        logger.error("Chunk %s ended as %s.", chunk.workflow_id, chunk.status)
        raise Failure(problem_of(RuntimeError("a chunk did not end")))
    if "problem" in chunk.output:
        raise Failure(chunk.output["problem"])
    if "result" not in chunk.output:
        raise JobCancelled
    return chunk.output["result"]

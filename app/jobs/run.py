"""One execution of a job or of one of its chunks, as a handler sees it: recorded steps, chunks, cancellation.

Everything a handler needs of the job engine, and the only thing it sees of it. Runs in the worker
process, on the thread of the workflow.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

from dbos import DBOS, DBOSClient, PortableWorkflowError, SQLAlchemyDatasource, WorkflowStatus
from sqlalchemy import Select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.db.models import Job
from app.db.outages import is_outage
from app.db.session import Database
from app.errors import AppError, DatabaseFull, DatabaseUnavailable
from app.jobs import durable, record
from app.jobs.executions import Executions
from app.jobs.handler import JobCancelled, JobPaused, Json, TryLater, WorkLost
from app.jobs.isolation import Isolation

logger = logging.getLogger(__name__)

# Chunks of one job that are queued or running at a time: enough for eight workers, few enough that a
# second job's chunks are reached soon.
CHUNKS_AHEAD = 16


class Failure(Exception):
    """A handler's error as it is recorded: its problem alone; DBOS stores `data` and gives it back on replay."""

    def __init__(self, problem: dict[str, Json]) -> None:
        super().__init__(problem["detail"])
        self.data = problem


@dataclass(frozen=True, slots=True)
class Workshop:
    """What all executions in one worker process share.

    Attributes:
        worker_id: The worker's id, under which the job engine knows what it holds.
        own_row: Finds the worker's row as long as nobody has taken it over.
        stopping: Set when the worker takes no new work; who only waits gives his work back.
        leaving: Set when the worker's grace is over; everybody gives his work back.
        isolation: What works here now.
        executions: The workflows that have a thread here.
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

    @contextmanager
    def isolated(self, keep_waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Do this workflow's work beside others, or alone if a worker has died over it or over what ran beside it.

        Args:
            keep_waiting: Called now and then while others work; raises to give up.

        Raises:
            TryLater: The worker is to stop before its turn has come.
        """
        workflow_id = DBOS.workflow_id
        assert workflow_id is not None
        [workflow] = self.client.list_workflows(workflow_ids=[workflow_id], load_input=False, load_output=False)
        noted = workflow.attributes or {}
        is_suspect = bool(noted.get(durable.SUSPECT))

        def look_up() -> None:
            if self.stopping.is_set():
                raise TryLater
            keep_waiting()

        with self.isolation.held(is_suspect=is_suspect, keep_waiting=look_up):
            if not is_suspect:
                yield
                return
            self.client.update_workflow_attributes(workflow_id, {**noted, durable.ALONE: True})
            try:
                yield
            finally:  # before another one begins, whose death is not this one's
                self.client.update_workflow_attributes(workflow_id, {**noted, durable.ALONE: False})


class JobRun:
    """A job under way.

    Attributes:
        id: The job's id.
        spec: What was submitted.
    """

    def __init__(self, job: Job, workshop: Workshop, *, is_isolated: bool = False) -> None:
        """Begin an execution.

        Args:
            job: The job's row.
            workshop: What it shares with others.
            is_isolated: Whether it is isolated as a whole, as a chunk is; else each of its steps is.
        """
        self.id = job.id
        self.spec: dict[str, Json] = job.spec
        self._place = durable.place(job.priority)
        self._workshop = workshop
        self._is_isolated = is_isolated
        self._num_chunks = 0

    @property
    def is_stopping(self) -> bool:
        """Whether the worker takes no new work: who only waits should give his work back."""
        return self._workshop.stopping.is_set()

    def step(self, name: str, fn: Callable[[], Json]) -> Json:
        """Run a function and record what it returns; after a crash in the middle it runs again.

        Args:
            name: The same at each execution.
            fn: Its effects must bear repetition: write a file under a name that follows from the spec.
        """

        def body() -> Json:
            try:
                with nullcontext() if self._is_isolated else self._workshop.isolated(self.check_cancelled):
                    self.check_cancelled()
                    return fn()
            except Exception as error:
                raise _as_recorded(error) from error

        return _recorded(lambda: DBOS.run_step({"name": name}, body))

    def transaction(self, name: str, fn: Callable[[Session], Json]) -> Json:
        """Run a function in a database transaction that commits together with its record: exactly once.

        Args:
            name: The same at each execution.
            fn: May run more than once, but only one of its transactions commits. No waiting inside.
        """
        datasource = self._workshop.datasource

        def body() -> Json:
            session = datasource.sql_session()
            if record.must_stop(session.get(Job, self.id, populate_existing=True)):
                raise JobCancelled
            try:
                return fn(session)
            except DBAPIError:  # DBOS tries again what a retry can mend
                raise
            except Exception as error:
                raise _as_recorded(error) from error

        # Rows are guarded by constraints and locks; SQLite knows no other level than its own.
        serializable = datasource.engine.dialect.name == "sqlite"
        return _recorded(
            lambda: datasource.run_tx_step(
                {"name": name, "isolation_level": "SERIALIZABLE" if serializable else "READ COMMITTED"}, body
            )
        )

    def chunks(self, items: Sequence[Json]) -> list[Json]:
        """Hand every item to `run_chunk`, on any worker, and return the results in the items' order.

        Raises:
            Exception: A chunk failed: the job is to fail with that chunk's problem.
        """
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
        """Return if the work may go on: a read of one row, to be called between images.

        Raises:
            JobCancelled: The job has to stop, or to rest (`JobPaused`); let it pass.
            TryLater: The worker is leaving; let it pass.
            WorkLost: Another worker does the work by now; let it pass.
        """
        job = self._look()
        if record.must_stop(job):
            raise JobCancelled
        if record.must_rest(job):
            raise JobPaused

    def check_held(self) -> None:
        """Return if this worker still answers for the work: before anything is removed.

        Raises:
            TryLater, WorkLost: As in `check_cancelled`.
        """
        self._look()

    def drain(self) -> None:
        """Wait until no chunk of a stopped or resting job runs any more, and let none begin."""
        client = self._workshop.client
        parent_id = durable.job_workflow_id(self.id)
        while active := client.list_workflows(
            parent_workflow_id=parent_id, status=durable.ACTIVE, load_input=False, load_output=False
        ):
            # One that is claimed meanwhile sees the row before it does anything, so cancelling is safe.
            client.cancel_workflows([chunk.workflow_id for chunk in active if chunk.status == "ENQUEUED"])
            self._pause()

    def _look(self) -> Job | None:
        if self._workshop.leaving.is_set():
            raise TryLater
        try:
            with self._workshop.db.snapshot() as session:
                job, own_row = session.get(Job, self.id), session.scalar(self._workshop.own_row)
        except (DatabaseUnavailable, DatabaseFull) as error:
            raise TryLater from error
        if own_row is None:
            raise WorkLost
        return job

    def _enqueue_chunk(self, item: Json) -> str:
        workflow_id = durable.chunk_workflow_id(self.id, self._num_chunks)
        self._num_chunks += 1
        DBOS.enqueue_workflow_with_options(
            {
                "workflow_name": durable.CHUNK_WORKFLOW,
                "queue_name": durable.CHUNK_QUEUE,
                "workflow_id": workflow_id,
                "app_version": durable.JOBS_VERSION,
                "priority": self._place,
            },
            self.id,
            item,
        )
        return workflow_id

    def _collect(self, waiting: dict[str, int], results: list[Json]) -> None:
        ended = self._workshop.client.list_workflows(workflow_ids=list(waiting), status=durable.ENDED, load_input=False)
        put_aside = [chunk.workflow_id for chunk in ended if chunk.status == "CANCELLED"]
        for chunk in ended:
            if chunk.status != "CANCELLED":
                results[waiting.pop(chunk.workflow_id)] = _chunk_result(chunk)
        if put_aside or not ended:
            self._pause()
            self.check_cancelled()
        if put_aside:  # while the job rested; now it goes on
            self._workshop.client.resume_workflows(put_aside, queue_name=durable.CHUNK_QUEUE)

    def _pause(self) -> None:
        if self._workshop.stopping.wait(self._workshop.poll_s):
            raise TryLater


def problem_of(error: Exception) -> dict[str, Json]:
    """Describe what a handler raised; the text of an unexpected exception goes to the log alone."""
    if isinstance(error, Failure):
        return error.data
    if isinstance(error, AppError):
        return record.problem_of(error)
    logger.error("A job failed unexpectedly.", exc_info=error)
    return record.problem_of(AppError("The job failed for an internal reason."))


def _as_recorded(error: Exception) -> BaseException:
    """Return what a step or transaction ends with: a failure to be recorded, unless it has only to wait."""
    return TryLater() if is_outage(error) else Failure(problem_of(error))


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

"""The two workflows of the job engine: a job, and a chunk of a job.

A workflow hands its handler a `JobExecution` and writes the outcome into the job's row; the workflow itself always
succeeds, or is detached or requeued. Imports no kind of job. Runs in the worker process, each execution on a thread of
its own.
"""

import itertools
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NoReturn

from dbos import DBOS
from sqlalchemy.orm import Session

from app.db.models import Job
from app.db.outages import is_outage
from app.jobs import durable, record
from app.jobs.context import JobExecution, WorkerContext, problem_of
from app.jobs.handler import JobHandler
from app.jobs.signals import JobCancelled, JobPaused, Json, Requeue
from app.logs.context import handling, note_request
from app.tracing.spans import REQUEST_ID

logger = logging.getLogger(__name__)

# Wait before a workflow is requeued, so that one that cannot go on here does not loop without a pause.
_REQUEUE_DELAY_S = 1.0

# The same for a job of a kind that this worker has no handler for, which only a newer worker can run. For its chunks
# one second is enough, so that a newer worker gets them soon.
_UNKNOWN_KIND_DELAY_S = 10.0

# Waits between attempts to requeue while the database is unavailable; the last one repeats.
_REQUEUE_RETRY_S = (0.5, 1.0, 2.0, 5.0)


class _Detached(BaseException):
    """This execution ends, its workflow does not; not an Exception, so that DBOS records no outcome."""


class _UnknownKind(Requeue):
    """This worker has no handler for the job's kind: a newer node submitted it, and a newer worker will run it."""


class Workflows:
    """The workflow functions over a set of handlers."""

    def __init__(self, handlers: Mapping[str, JobHandler], worker: WorkerContext) -> None:
        self._handlers = handlers
        self._worker = worker
        self._db = worker.db
        self._unknown_kinds: set[str] = set()

    def register(self) -> None:
        """Register the workflows with DBOS; before its launch."""

        # No limit of DBOS's own, whose count restarts at each resume: `attribute_crash` counts instead.
        @DBOS.workflow(name=durable.JOB_WORKFLOW, max_recovery_attempts=None)
        def job(job_id: str) -> None:
            with handling(job=job_id), self._worker.tracing.span("job", {}):
                self.run_job(job_id)

        @DBOS.workflow(name=durable.CHUNK_WORKFLOW, max_recovery_attempts=None)
        def chunk(job_id: str, item: Json) -> dict[str, Json]:
            with handling(job=job_id), self._worker.tracing.span("chunk", {}):
                return self.run_chunk(job_id, item)

    def run_job(self, job_id: str) -> None:
        """Run a job to its last status."""
        with self._requeueing(_UNKNOWN_KIND_DELAY_S):
            with self._db.transaction() as session:
                job = session.get(Job, job_id)
                self._note(job)
                handler = self._handler(job.kind) if job is not None else None
                job = record.begin(session, job_id)
            if job is None or handler is None:
                return
            execution = JobExecution(job, self._worker)
            completed, result = False, None
            if record.should_pause(job):
                self._pause(handler, execution)
            if not record.must_stop(job):
                try:
                    completed, result = self._execute(handler, execution)
                except JobPaused:
                    self._pause(handler, execution)
            if not completed:
                self._drain(handler, execution)
            with self._db.transaction() as session:
                record.finish(session, job_id, handler.on_end, completed=completed, result=result)

    def run_chunk(self, job_id: str, item: Json) -> dict[str, Json]:
        """Run one chunk and return {"result": ...}, {"problem": ...}, or {} when the job has to stop.

        A chunk of a paused job is detached; the job's own workflow resumes it.
        """
        with self._requeueing(), self._worker.isolated():
            with self._db.snapshot() as session:
                job = session.get(Job, job_id)
            self._note(job)
            if job is None or record.must_stop(job):
                return {}
            if record.should_pause(job):
                self._detach()
            try:
                execution = JobExecution(job, self._worker, is_isolated=True)
                return {"result": self._handler(job.kind).run_chunk(execution, item)}
            except JobPaused:
                self._detach()
            except JobCancelled:
                return {}
            except Exception as error:
                return {"problem": self._problem_of(error)}

    def _note(self, job: Job | None) -> None:
        """Let the log and the present span name the request that made the job, and the job's kind."""
        if job is None:
            return
        self._worker.tracing.note("foxhound.job_kind", job.kind)
        if job.request_id:
            note_request(job.request_id)
            self._worker.tracing.note(REQUEST_ID, job.request_id)

    def on_end(self, session: Session, job: Job) -> None:
        """Call the handler of a job that was ended outside of its workflow, by the reaper."""
        if job.kind in self._handlers:
            self._handlers[job.kind].on_end(session, job)

    def queue_of(self, job: Job) -> str | None:
        """Return the queue of a job; None if this worker has no handler for its kind."""
        return self._handlers[job.kind].queue if job.kind in self._handlers else None

    def _drain(self, handler: JobHandler, execution: JobExecution) -> None:
        """Wait until no part of a job runs, then let its handler clean up; a failure of the cleanup is logged alone."""
        execution.drain()
        execution.check_held()  # else another worker's parts may be writing what is not recorded yet
        try:
            handler.cleanup(execution)
        except Exception as error:
            if is_outage(error):
                raise
            logger.exception("The unrecorded files of job %s could not be removed.", execution.id)

    def _pause(self, handler: JobHandler, execution: JobExecution) -> NoReturn:
        """Detach a job's workflow once no part of the job runs; if the job was resumed meanwhile, requeue it instead.

        The workflow is detached before the row says `paused`: a reader of `paused` may resume the workflow, which
        then has to stay queued.
        """
        self._drain(handler, execution)
        workflow_id = durable.job_workflow_id(execution.id)
        with self._db.snapshot() as session:
            should_pause = record.should_pause(session.get(Job, execution.id))
        # Otherwise the job was resumed, and may run elsewhere by now. A worker that stalls at this point detaches that
        # execution: the workflow is requeued below, or by the reaper, which finds `wake_requested` in the row.
        if should_pause:
            self._worker.client.cancel_workflow(workflow_id)
        with self._db.transaction() as session:
            is_paused = record.pause(session, execution.id)
        if not is_paused:
            self._worker.client.resume_workflow(workflow_id, queue_name=handler.queue)
        raise _Detached

    def _detach(self) -> NoReturn:
        assert DBOS.workflow_id is not None
        self._worker.client.cancel_workflow(DBOS.workflow_id)
        raise _Detached

    def _execute(self, handler: JobHandler, execution: JobExecution) -> tuple[bool, dict[str, Json] | None]:
        """Return whether the handler completed the job, and its result."""
        try:
            return True, handler.run(execution)
        except JobPaused:
            raise
        except JobCancelled:
            pass
        except Exception as error:
            problem = self._problem_of(error)
            execution.check_held()  # else the job continues on another worker
            with self._db.transaction() as session:
                record.mark_failing(session, execution.id, problem)
        return False, None

    def _problem_of(self, error: Exception) -> dict[str, Json]:
        if is_outage(error) or self._worker.leaving.is_set():  # DBOS is closed by now: the error is a consequence
            raise Requeue from error
        return problem_of(error)

    def _handler(self, kind: str) -> JobHandler:
        if kind not in self._handlers:
            if kind not in self._unknown_kinds:
                logger.warning("This worker has no handler for jobs of kind %s. A newer worker has to run them.", kind)
            self._unknown_kinds.add(kind)
            raise _UnknownKind
        return self._handlers[kind]

    @contextmanager
    def _requeueing(self, unknown_kind_delay_s: float = _REQUEUE_DELAY_S) -> Iterator[None]:
        """Requeue this workflow if the block raises Requeue or an outage; after `unknown_kind_delay_s` an unknown kind.

        The exception that leaves the block then is no Exception, so DBOS records no outcome.
        """
        workflow_id = DBOS.workflow_id
        assert workflow_id is not None
        with self._worker.executions.held(workflow_id):
            try:
                yield
            except (Requeue, Exception) as error:
                if not isinstance(error, Requeue) and not is_outage(error):
                    raise
                delay_s = unknown_kind_delay_s if isinstance(error, _UnknownKind) else _REQUEUE_DELAY_S
                self._worker.stopping.wait(delay_s)
                requeue(self._worker, workflow_id)
                raise Requeue from error


def requeue(worker: WorkerContext, workflow_id: str) -> None:
    """Put a workflow that this worker holds back on its own queue; this execution can record nothing more.

    Retries while the database is unavailable. Returns at once when the worker exits, which requeues everything itself;
    after another error the reaper finds the workflow, which has no thread.
    """
    delays = itertools.chain(_REQUEUE_RETRY_S, itertools.repeat(_REQUEUE_RETRY_S[-1]))
    while not worker.leaving.is_set():
        try:
            _requeue_once(worker, workflow_id)
            return
        except Exception as error:
            if not is_outage(error):
                logger.exception("%s could not be requeued. The reaper will requeue it.", workflow_id)
                return
        worker.leaving.wait(next(delays))


def _requeue_once(worker: WorkerContext, workflow_id: str) -> None:
    held = worker.client.list_workflows(
        workflow_ids=[workflow_id],
        status="PENDING",
        executor_id=worker.worker_id,
        load_input=False,
        load_output=False,
    )
    for workflow in held:  # none, if another worker took it over meanwhile
        worker.client.resume_workflow(workflow_id, queue_name=workflow.queue_name)

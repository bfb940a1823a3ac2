"""The two workflows of the job engine: a job, and a chunk of a job.

A workflow hands its handler a `JobRun` and turns whatever comes back into the job's row; it never ends
badly itself. Runs in the worker process, each execution on a thread of its own.
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
from app.jobs.handler import JobCancelled, JobHandler, JobPaused, Json, TryLater
from app.jobs.run import JobRun, Workshop, problem_of

logger = logging.getLogger(__name__)

# After giving work back, so that what cannot go on here does not spin.
_GIVE_BACK_DELAY_S = 1.0

# Likewise for a job of a kind that this worker does not know: only a newer worker can help. For its chunks the
# second is enough, so that it keeps them from nobody.
_UNKNOWN_KIND_DELAY_S = 10.0


# While the database is away, between tries to give work back: soon after a short outage, seldom in a long one.
_GIVE_BACK_AGAIN_S = (0.5, 1.0, 2.0, 5.0)


class _Left(BaseException):
    """This execution is over, its workflow is not; no Exception, so that DBOS records no outcome."""


class _UnknownKind(TryLater):
    """A newer node submitted this job; one of its workers will take it."""


class Workflows:
    """The workflow functions over a set of handlers."""

    def __init__(self, handlers: Mapping[str, JobHandler], workshop: Workshop) -> None:
        self._handlers = handlers
        self._workshop = workshop
        self._db = workshop.db
        self._strange_kinds: set[str] = set()

    def register(self) -> None:
        """Make the workflows known to DBOS; before its launch."""

        # No limit of DBOS's own: `Reaper` counts what dies, and DBOS's count restarts at each resume.
        @DBOS.workflow(name=durable.JOB_WORKFLOW, max_recovery_attempts=None)
        def job(job_id: str) -> None:
            self.run_job(job_id)

        @DBOS.workflow(name=durable.CHUNK_WORKFLOW, max_recovery_attempts=None)
        def chunk(job_id: str, item: Json) -> dict[str, Json]:
            return self.run_chunk(job_id, item)

    def run_job(self, job_id: str) -> None:
        """Carry a job to its last status."""
        with self._giving_back(_UNKNOWN_KIND_DELAY_S):
            with self._db.transaction() as session:
                job = session.get(Job, job_id)
                handler = self._handler(job.kind) if job is not None else None
                job = record.begin(session, job_id)
            if job is None or handler is None:
                return
            run = JobRun(job, self._workshop)
            completed, result = False, None
            if record.must_rest(job):
                self._rest(handler, run)
            if not record.must_stop(job):
                try:
                    completed, result = self._carry_out(handler, run)
                except JobPaused:
                    self._rest(handler, run)
            if not completed:
                self._drain(handler, run)
            with self._db.transaction() as session:
                record.finish(session, job_id, handler.on_end, completed=completed, result=result)

    def run_chunk(self, job_id: str, item: Json) -> dict[str, Json]:
        """Do one chunk: {"result": ...}, {"problem": ...}, or {} when the job has to stop.

        A chunk of a resting job is put aside; the job's own workflow lets it go on.
        """
        with self._giving_back(), self._workshop.isolated():
            with self._db.snapshot() as session:
                job = session.get(Job, job_id)
            if job is None or record.must_stop(job):
                return {}
            if record.must_rest(job):
                self._put_aside()
            try:
                run = JobRun(job, self._workshop, is_isolated=True)
                return {"result": self._handler(job.kind).run_chunk(run, item)}
            except JobPaused:
                self._put_aside()
            except JobCancelled:
                return {}
            except Exception as error:
                return {"problem": self._problem_of(error)}

    def on_end(self, session: Session, job: Job) -> None:
        """Tell a job's handler that it has ended; for who ends jobs from outside."""
        if job.kind in self._handlers:
            self._handlers[job.kind].on_end(session, job)

    def queue_of(self, job: Job) -> str | None:
        """Return the queue of a job; None if this worker does not know its kind."""
        return self._handlers[job.kind].queue if job.kind in self._handlers else None

    def _drain(self, handler: JobHandler, run: JobRun) -> None:
        """Wait until nothing of a job runs, then let its handler clean up; what it cannot is no reason to go on."""
        run.drain()
        run.check_held()  # else another worker's parts may be writing what is not recorded yet
        try:
            handler.tidy(run)
        except Exception as error:
            if is_outage(error):
                raise
            logger.exception("What job %s left unrecorded could not be removed.", run.id)

    def _rest(self, handler: JobHandler, run: JobRun) -> NoReturn:
        """Put a job aside once nothing of it runs; if it is to go on by then, queue it again instead.

        Aside first and noted second: whoever reads `paused` may queue the workflow again, and it stays queued.
        """
        self._drain(handler, run)
        workflow_id = durable.job_workflow_id(run.id)
        with self._db.snapshot() as session:
            must_rest = record.must_rest(session.get(Job, run.id))
        # Else it was resumed, and may be running elsewhere by now. Who stalls right here puts that aside: it is queued
        # again below, or by the reaper, which finds `wake_requested` in the row.
        if must_rest:
            self._workshop.client.cancel_workflow(workflow_id)
        with self._db.transaction() as session:
            rests = record.rest(session, run.id)
        if not rests:
            self._workshop.client.resume_workflow(workflow_id, queue_name=handler.queue)
        raise _Left

    def _put_aside(self) -> NoReturn:
        assert DBOS.workflow_id is not None
        self._workshop.client.cancel_workflow(DBOS.workflow_id)
        raise _Left

    def _carry_out(self, handler: JobHandler, run: JobRun) -> tuple[bool, dict[str, Json] | None]:
        try:
            return True, handler.run(run)
        except JobPaused:
            raise
        except JobCancelled:
            pass
        except Exception as error:
            problem = self._problem_of(error)
            run.check_held()  # else the job goes on elsewhere
            with self._db.transaction() as session:
                record.doom(session, run.id, problem)
        return False, None

    def _problem_of(self, error: Exception) -> dict[str, Json]:
        if is_outage(error) or self._workshop.leaving.is_set():  # DBOS is gone already: that is what failed
            raise TryLater from error
        return problem_of(error)

    def _handler(self, kind: str) -> JobHandler:
        if kind not in self._handlers:
            if kind not in self._strange_kinds:
                logger.warning("Jobs of kind %s are left for a newer worker.", kind)
            self._strange_kinds.add(kind)
            raise _UnknownKind
        return self._handlers[kind]

    @contextmanager
    def _giving_back(self, unknown_s: float = _GIVE_BACK_DELAY_S) -> Iterator[None]:
        """Queue this workflow again when it says TryLater or the database is away; after `unknown_s`, an unknown kind.

        What leaves here then is no Exception, so DBOS records no outcome.
        """
        workflow_id = DBOS.workflow_id
        assert workflow_id is not None
        with self._workshop.executions.held(workflow_id):
            try:
                yield
            except (TryLater, Exception) as error:
                if not isinstance(error, TryLater) and not is_outage(error):
                    raise
                self._workshop.stopping.wait(unknown_s if isinstance(error, _UnknownKind) else _GIVE_BACK_DELAY_S)
                give_back(self._workshop, workflow_id)
                raise TryLater from error


def give_back(workshop: Workshop, workflow_id: str) -> None:
    """Put a workflow that this worker holds back on its own queue; it can record nothing more of it.

    Waits for a database that is away. Returns at once when the worker leaves, which gives back everything itself; if
    another fault keeps it from being done, the reaper finds a workflow without a thread.
    """
    delays = itertools.chain(_GIVE_BACK_AGAIN_S, itertools.repeat(_GIVE_BACK_AGAIN_S[-1]))
    while not workshop.leaving.is_set():
        try:
            _give_back_once(workshop, workflow_id)
            return
        except Exception as error:
            if not is_outage(error):
                logger.exception("%s could not be given back; it is looked after.", workflow_id)
                return
        workshop.leaving.wait(next(delays))


def _give_back_once(workshop: Workshop, workflow_id: str) -> None:
    held = workshop.client.list_workflows(
        workflow_ids=[workflow_id],
        status="PENDING",
        executor_id=workshop.worker_id,
        load_input=False,
        load_output=False,
    )
    for workflow in held:  # none, if another worker took it over meanwhile
        workshop.client.resume_workflow(workflow_id, queue_name=workflow.queue_name)

"""Who is dead, and the taking over of what a dead worker held.

DBOS fences (a workflow that was taken over can record nothing under its old execution) but does not
notice that a process or a thread died; that is done here, by public calls alone. Runs in the worker process,
on a thread of its own.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from dbos import DBOSClient, WorkflowStatus
from sqlalchemy import delete, func, select

from app.db.base import utc_now
from app.db.models import Job, Worker, active_jobs
from app.db.session import Database
from app.errors import AppError
from app.jobs import durable, record
from app.jobs.blame import blame
from app.jobs.executions import Executions
from app.jobs.heartbeat import Heartbeat

logger = logging.getLogger(__name__)

_LOST = AppError("The job failed for an internal reason.")

# Jobs that are compared with their workflows in one statement, which takes no more than 32,766 values on SQLite; and
# such pages in one round, so that 10,000 waiting jobs are gone through in five rounds of some 100 ms.
_PAGE = 500
_PAGES_A_ROUND = 4


class _Silence:
    """How long each beat has stood still, by the clock of who looks.

    A beat is only ever compared with itself, so that no clock of another machine, and no clock that is set,
    can make a live worker look dead. Who did not look for a while, as in an outage, begins anew: the others
    get time to be heard.
    """

    def __init__(self, patience_s: float, clock: Callable[[], float]) -> None:
        self._patience_s = patience_s
        self._clock = clock
        self._looked_at = -float("inf")
        self._seen: dict[str, tuple[datetime, float]] = {}

    def look(self, workers: Iterable[Worker]) -> dict[str, float]:
        """Return how long each of these workers was silent as far as was seen, in seconds, by its id."""
        now = self._clock()
        before = self._seen if now - self._looked_at <= self._patience_s else {}
        self._looked_at, self._seen = now, {}
        for worker in workers:
            beat_at, since = before.get(worker.id, (worker.beat_at, now))
            self._seen[worker.id] = (worker.beat_at, since if beat_at == worker.beat_at else now)
        return {worker_id: now - since for worker_id, (_, since) in self._seen.items()}


class Reaper:
    """One worker's watch over the others.

    A worker's row says which process answers for its workflows. Whoever takes over a dead worker writes
    itself into that row first, so that of several reapers one acts, and a reaper that dies half-way is
    found in its turn. The row goes when nothing is left.
    """

    def __init__(
        self,
        db: Database,
        client: DBOSClient,
        heartbeat: Heartbeat,
        on_end: record.OnEnd,
        queue_of: Callable[[Job], str | None],
        executions: Executions,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db = db
        self._client = client
        self._on_end = on_end
        self._queue_of = queue_of
        self._me = heartbeat
        self._executions = executions
        self._clock = clock
        self._silence = _Silence(heartbeat.ttl_s / 2, clock)
        self._reconciled_to = ""
        self._idle_since: dict[str, float] = {}

    def withdraw(self) -> None:
        """Give back what this worker holds and remove its row; when it claims nothing more."""
        self._requeue(self._me.worker_id, count=False)
        self._remove(self._me.worker_id)

    def watch(self, stop: threading.Event) -> None:
        """Look after the others until told to stop or taken for dead."""
        while not self._me.lost.is_set():
            try:
                self.round()
            except Exception:
                logger.exception("Looking after the other workers failed; it goes on.")
            if stop.wait(self._me.ttl_s / 4):
                return

    def round(self) -> None:
        """Give back what stands still here, take over from the dead, and let one worker settle what nobody holds."""
        self._give_back_idle()
        for worker_id in self._claim_dead():
            # Not removed in the same round: should it live after all, it may claim anew until its next beat.
            if not self._requeue(worker_id, count=True):
                self._remove(worker_id)
        if self._is_first():
            self._adopt_orphans()
            self._reconcile()

    def _give_back_idle(self) -> None:
        """Queue again what this worker holds and no thread of it works on, as seen for half of the time to live.

        A thread that died over an outage leaves such a workflow, or a claim whose answer was lost; one that was just
        claimed has no thread yet.
        """
        held = self._client.list_workflows(
            executor_id=self._me.worker_id, status="PENDING", load_input=False, load_output=False
        )
        now, before = self._clock(), self._idle_since
        idle = [workflow for workflow in held if workflow.workflow_id not in self._executions]
        self._idle_since = {each.workflow_id: before.get(each.workflow_id, now) for each in idle}
        for workflow in idle:
            if now - self._idle_since[workflow.workflow_id] >= self._me.ttl_s / 2:
                logger.warning("Nothing works on %s, which this worker holds; queueing it again.", workflow.workflow_id)
                self._client.resume_workflow(workflow.workflow_id, queue_name=workflow.queue_name)
                del self._idle_since[workflow.workflow_id]

    def _claim_dead(self) -> list[str]:
        with self._db.transaction() as session:
            query = select(Worker).where(Worker.id != self._me.worker_id).with_for_update(skip_locked=True)
            others = session.scalars(query).all()
            silent_s = self._silence.look(others)
            dead = [worker for worker in others if self._is_dead(worker, silent_s[worker.id])]
            for worker in dead:
                worker.host, worker.pid, worker.beat_at = self._me.host, os.getpid(), utc_now()
            return [worker.id for worker in dead]

    def _is_dead(self, worker: Worker, silent_s: float) -> bool:
        if worker.host == self._me.host and (worker.pid == os.getpid() or not _is_running(worker.pid)):
            return True  # my own process is never another worker: taken over before, or a reused pid
        return silent_s > self._me.ttl_s

    def _requeue(self, worker_id: str, *, count: bool) -> int:
        """Put all that a worker holds back on the queues it came from and return how much that was."""
        held = self._client.list_workflows(executor_id=worker_id, status="PENDING", load_output=False)
        if count:
            blame(self._db, self._client, held)
        for workflow in held:
            if count:
                logger.warning("Worker %s died; queueing %s again.", worker_id, workflow.workflow_id)
            self._client.resume_workflow(workflow.workflow_id, queue_name=workflow.queue_name)
        return len(held)

    def _remove(self, worker_id: str) -> None:
        with self._db.transaction() as session:
            session.execute(delete(Worker).where(Worker.id == worker_id))

    def _is_first(self) -> bool:
        with self._db.snapshot() as session:
            return session.scalar(select(func.min(Worker.id))) == self._me.worker_id

    def _adopt_orphans(self) -> None:
        """Take over what was claimed by a worker without a row: one that was dead, woke up and ended.

        What is claimed is little, however much waits: each worker has as many places as its queues let it fill.
        """
        running = self._client.list_workflows(status="PENDING", load_input=False, load_output=False)
        with self._db.snapshot() as session:  # read after the workflows: a new worker's row precedes its claims
            known = set(session.scalars(select(Worker.id)))
        for worker_id in {workflow.executor_id for workflow in running} - {None, *known}:
            self._requeue(str(worker_id), count=True)

    def _reconcile(self) -> None:
        """Let jobs and their workflows agree again, some pages of jobs further each round, and from the start again."""
        for _ in range(_PAGES_A_ROUND):
            page = self._next_page()
            if page:
                self._settle(page)
            if not self._reconciled_to:
                return

    def _next_page(self) -> list[str]:
        """Return the ids of the next jobs that have not ended."""
        query = select(Job.id).where(active_jobs(), Job.id > self._reconciled_to).order_by(Job.id).limit(_PAGE)
        with self._db.snapshot() as session:
            page = list(session.scalars(query))
        self._reconciled_to = page[-1] if len(page) == _PAGE else ""
        return page

    def _settle(self, job_ids: Sequence[str]) -> None:
        """Bring these jobs on where their workflow ended, rested or was to go on alone."""
        workflow_ids = [durable.job_workflow_id(job_id) for job_id in job_ids]
        ended = self._client.list_workflows(workflow_ids=workflow_ids, status=durable.ENDED, load_output=False)
        for workflow in ended:
            if workflow.status == "CANCELLED" and (self._settle_rest(workflow) or not self._is_cancelled(workflow)):
                continue
            with self._db.transaction() as session:
                if workflow.status != "CANCELLED":
                    record.doom(session, durable.job_id_of(workflow), record.problem_of(_LOST))
                record.finish(session, durable.job_id_of(workflow), self._on_end, completed=False)

    def _settle_rest(self, workflow: WorkflowStatus) -> bool:
        """Note the pause of a job that was put aside, or wake it if that was asked for; False if it was neither."""
        with self._db.transaction() as session:
            if record.rest(session, durable.job_id_of(workflow)):
                return True
            job = session.get_one(Job, durable.job_id_of(workflow))
            wakes, queue_name = job.wake_requested and not record.must_stop(job), self._queue_of(job)
        if wakes and queue_name is not None:
            self._client.resume_workflow(workflow.workflow_id, queue_name=queue_name)
        return wakes

    def _is_cancelled(self, workflow: WorkflowStatus) -> bool:
        """Look again, after the row was read: a job that was resumed since the list was made goes on."""
        ids = [workflow.workflow_id]
        return bool(self._client.list_workflows(workflow_ids=ids, status="CANCELLED", load_input=False))


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

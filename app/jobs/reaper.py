"""Detects crashed workers and takes over their work; brings jobs and their workflows back into agreement.

DBOS fences: a workflow that was taken over can record nothing under its old execution. It does not detect that a
process or a thread has crashed; this module does, through DBOS's public calls alone. Imports no kind of job. Runs in
the worker process, on a thread of its own.
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
from app.jobs.attribute_crash import attribute_crash
from app.jobs.executions import Executions
from app.jobs.heartbeat import Heartbeat

logger = logging.getLogger(__name__)

_LOST = AppError("The job failed for an internal reason.")

# Jobs that are compared with their workflows in one statement, which takes at most 32,766 values on SQLite; and such
# pages in one round: 10,000 waiting jobs take five rounds of some 100 ms.
_PAGE = 500
_PAGES_A_ROUND = 4


class _Silence:
    """How long each worker's heartbeat has not changed, by this process's clock.

    A heartbeat is only compared with the same worker's earlier one, so that neither another machine's clock nor a
    clock change makes a live worker look dead. After a gap between two readings, as in an outage, all times start
    at 0 again, so that the other workers have time for their next heartbeat.
    """

    def __init__(self, max_gap_s: float, clock: Callable[[], float]) -> None:
        self._max_gap_s = max_gap_s
        self._clock = clock
        self._read_at = -float("inf")
        self._seen: dict[str, tuple[datetime, float]] = {}

    def read(self, workers: Iterable[Worker]) -> dict[str, float]:
        """Return the seconds since each worker's heartbeat was seen to change, by worker id."""
        now = self._clock()
        before = self._seen if now - self._read_at <= self._max_gap_s else {}
        self._read_at, self._seen = now, {}
        for worker in workers:
            beat_at, since = before.get(worker.id, (worker.beat_at, now))
            self._seen[worker.id] = (worker.beat_at, since if beat_at == worker.beat_at else now)
        return {worker_id: now - since for worker_id, (_, since) in self._seen.items()}


class Reaper:
    """One worker's supervision of the others.

    A worker's row names the process that holds the worker's workflows. A reaper that takes over a dead worker first
    writes its own process into that row, so that only one of several reapers acts, and a reaper that crashes half-way
    is detected in turn. The row is deleted when no workflow is left.
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
        """Requeue what this worker holds and delete its row; called when it claims nothing more."""
        self._requeue(self._me.worker_id, is_crash=False)
        self._remove(self._me.worker_id)

    def watch(self, stop: threading.Event) -> None:
        """Run a round every quarter of the time to live, until `stop` is set or this worker's row is lost."""
        while not self._me.lost.is_set():
            try:
                self.round()
            except Exception:
                logger.exception(
                    "Checking the other workers failed. The next check follows in %.1f s.", self._me.ttl_s / 4
                )
            if stop.wait(self._me.ttl_s / 4):
                return

    def round(self) -> None:
        """Requeue abandoned work of this worker and of dead ones; the worker with the first id also reconciles jobs."""
        self._requeue_idle()
        for worker_id in self._claim_dead():
            # The row stays for this round: a worker that lives after all may claim until its next heartbeat.
            if not self._requeue(worker_id, is_crash=True):
                self._remove(worker_id)
        if self._is_first():
            self._adopt_orphans()
            self._reconcile()

    def _requeue_idle(self) -> None:
        """Requeue workflows that this worker holds and that have had no thread for half of the time to live.

        A thread that ended in an outage leaves such a workflow, as does a claim whose answer was lost; one that was
        just claimed has no thread yet.
        """
        held = self._client.list_workflows(
            executor_id=self._me.worker_id, status="PENDING", load_input=False, load_output=False
        )
        now, before = self._clock(), self._idle_since
        idle = [workflow for workflow in held if workflow.workflow_id not in self._executions]
        self._idle_since = {each.workflow_id: before.get(each.workflow_id, now) for each in idle}
        for workflow in idle:
            if now - self._idle_since[workflow.workflow_id] >= self._me.ttl_s / 2:
                logger.warning(
                    "No thread of this worker runs %s, which it holds. It is requeued.", workflow.workflow_id
                )
                self._client.resume_workflow(workflow.workflow_id, queue_name=workflow.queue_name)
                del self._idle_since[workflow.workflow_id]

    def _claim_dead(self) -> list[str]:
        with self._db.transaction() as session:
            query = select(Worker).where(Worker.id != self._me.worker_id).with_for_update(skip_locked=True)
            others = session.scalars(query).all()
            silent_s = self._silence.read(others)
            dead = [worker for worker in others if self._is_dead(worker, silent_s[worker.id])]
            for worker in dead:
                worker.host, worker.pid, worker.beat_at = self._me.host, os.getpid(), utc_now()
            return [worker.id for worker in dead]

    def _is_dead(self, worker: Worker, silent_s: float) -> bool:
        if worker.host == self._me.host and (worker.pid == os.getpid() or not _is_running(worker.pid)):
            return True  # this process's own pid in another worker's row: taken over before, or a reused pid
        return silent_s > self._me.ttl_s

    def _requeue(self, worker_id: str, *, is_crash: bool) -> int:
        """Put every workflow that a worker holds back on its queue, and return how many there were."""
        held = self._client.list_workflows(executor_id=worker_id, status="PENDING", load_output=False)
        if is_crash:
            attribute_crash(self._db, self._client, held)
        for workflow in held:
            if is_crash:
                logger.warning("Worker %s has died. %s is requeued.", worker_id, workflow.workflow_id)
            self._client.resume_workflow(workflow.workflow_id, queue_name=workflow.queue_name)
        return len(held)

    def _remove(self, worker_id: str) -> None:
        with self._db.transaction() as session:
            session.execute(delete(Worker).where(Worker.id == worker_id))

    def _is_first(self) -> bool:
        with self._db.snapshot() as session:
            return session.scalar(select(func.min(Worker.id))) == self._me.worker_id

    def _adopt_orphans(self) -> None:
        """Requeue workflows claimed by a worker without a row: one that was declared dead, resumed, claimed and ended.

        The list of claimed workflows is short, however many wait: each worker's slots are limited by its queues.
        """
        running = self._client.list_workflows(status="PENDING", load_input=False, load_output=False)
        with self._db.snapshot() as session:  # read after the workflows: a new worker's row precedes its claims
            known = set(session.scalars(select(Worker.id)))
        for worker_id in {workflow.executor_id for workflow in running} - {None, *known}:
            self._requeue(str(worker_id), is_crash=True)

    def _reconcile(self) -> None:
        """Reconcile some pages of jobs with their workflows; each round continues, and starts over after the last."""
        for _ in range(_PAGES_A_ROUND):
            page = self._next_page()
            if page:
                self._reconcile_page(page)
            if not self._reconciled_to:
                return

    def _next_page(self) -> list[str]:
        """Return the ids of the next jobs that have not ended."""
        query = select(Job.id).where(active_jobs(), Job.id > self._reconciled_to).order_by(Job.id).limit(_PAGE)
        with self._db.snapshot() as session:
            page = list(session.scalars(query))
        self._reconciled_to = page[-1] if len(page) == _PAGE else ""
        return page

    def _reconcile_page(self, job_ids: Sequence[str]) -> None:
        """End, pause or resume those of these jobs whose workflow has ended or is detached."""
        workflow_ids = [durable.job_workflow_id(job_id) for job_id in job_ids]
        ended = self._client.list_workflows(workflow_ids=workflow_ids, status=durable.ENDED, load_output=False)
        for workflow in ended:
            if workflow.status == "CANCELLED" and (
                self._reconcile_paused(workflow) or not self._is_cancelled(workflow)
            ):
                continue
            with self._db.transaction() as session:
                if workflow.status != "CANCELLED":
                    record.mark_failing(session, durable.job_id_of(workflow), record.problem_of(_LOST))
                record.finish(session, durable.job_id_of(workflow), self._on_end, completed=False)

    def _reconcile_paused(self, workflow: WorkflowStatus) -> bool:
        """Pause the job of a detached workflow, or requeue the workflow if a resume was requested; False if neither."""
        with self._db.transaction() as session:
            if record.pause(session, durable.job_id_of(workflow)):
                return True
            job = session.get_one(Job, durable.job_id_of(workflow))
            should_resume, queue_name = job.wake_requested and not record.must_stop(job), self._queue_of(job)
        if should_resume and queue_name is not None:
            self._client.resume_workflow(workflow.workflow_id, queue_name=queue_name)
        return should_resume

    def _is_cancelled(self, workflow: WorkflowStatus) -> bool:
        """Read the workflow again, after the row: a job that was resumed since the list was made goes on."""
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

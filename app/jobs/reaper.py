"""Who works and who is dead: a worker's heartbeat, and the taking over of what a dead worker held.

DBOS fences (a workflow that was taken over can record nothing under its old execution) but does not
notice that a process died; that is done here, by public calls alone. Runs in the worker process, on the
heartbeat's thread.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path

from dbos import DBOSClient, WorkflowStatus
from sqlalchemy import Select, delete, func, select, update

from app.db.base import utc_now
from app.db.models import Job, Worker
from app.db.session import Database
from app.errors import AppError
from app.jobs import durable, record
from app.jobs.blame import blame

logger = logging.getLogger(__name__)

_LOST = AppError("The job failed for an internal reason.")


class _Silence:
    """How long each beat has stood still, by the clock of who looks.

    A beat is only ever compared with itself, so that no clock of another machine, and no clock that is set,
    can make a live worker look dead.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[datetime, float]] = {}

    def look(self, workers: Iterable[Worker]) -> dict[str, float]:
        """Return how long each of these workers was silent as far as was seen, in seconds, by its id."""
        now = self._clock()
        before, self._seen = self._seen, {}
        for worker in workers:
            beat_at, since = before.get(worker.id, (worker.beat_at, now))
            self._seen[worker.id] = (worker.beat_at, since if beat_at == worker.beat_at else now)
        return {worker_id: now - since for worker_id, (_, since) in self._seen.items()}

    def forget(self) -> None:
        """Begin to look anew."""
        self._seen.clear()


class Reaper:
    """One worker's row, its beats, and its watch over the others.

    A row says which process answers for the worker's workflows. Whoever takes over a dead worker writes
    itself into that row first, so that of several reapers one acts, and a reaper that dies half-way is
    found in its turn. The row goes when nothing is left.

    Attributes:
        lost: Set when another worker has taken this one for dead; the process has to end.
    """

    def __init__(
        self,
        db: Database,
        client: DBOSClient,
        on_end: record.OnEnd,
        queue_of: Callable[[Job], str | None],
        *,
        worker_id: str,
        host: str,
        ttl_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db = db
        self._client = client
        self._on_end = on_end
        self._queue_of = queue_of
        self._id = worker_id
        self._ttl_s = ttl_s
        self._host = host
        self._clock = clock
        self._silence = _Silence(clock)
        self._last_beat = -float("inf")
        self.lost = threading.Event()

    def register(self) -> None:
        """Write this worker's row: before it claims anything."""
        with self._db.transaction() as session:
            session.add(Worker(id=self._id, host=self._host, pid=os.getpid()))
        self._last_beat = self._clock()

    def withdraw(self) -> None:
        """Give back what this worker holds and remove its row; when it claims nothing more."""
        self._requeue(self._id, count=False)
        self._remove(self._id)

    def watch(self, stop: threading.Event) -> None:
        """Beat and look after the others until told to stop or lost."""
        while not self.lost.is_set():
            try:
                self.round()
            except Exception:
                logger.exception("The heartbeat failed; it goes on.")
            if stop.wait(self._ttl_s / 4):
                return

    def round(self) -> None:
        """Beat once; then take over from the dead, and let one worker settle what nobody holds."""
        gap_s = self._clock() - self._last_beat
        if not self._beat():
            logger.warning("This worker was taken for dead and ends.")
            self.lost.set()
            return
        self._last_beat = self._clock()
        if gap_s > self._ttl_s / 2:
            self._silence.forget()  # who was silent himself, as in an outage, gives the others time to be heard
        for worker_id in self._claim_dead():
            # Not removed in the same round: should it live after all, it may claim anew until its next beat.
            if not self._requeue(worker_id, count=True):
                self._remove(worker_id)
        if self._is_first():
            self._adopt_orphans()
            self._reconcile()

    def _beat(self) -> bool:
        mine = own_row(self._id, self._host).whereclause
        assert mine is not None
        with self._db.transaction() as session:
            beat = update(Worker).where(mine).values(beat_at=utc_now()).returning(Worker.id)
            return session.execute(beat).first() is not None

    def _claim_dead(self) -> list[str]:
        with self._db.transaction() as session:
            query = select(Worker).where(Worker.id != self._id).with_for_update(skip_locked=True)
            others = session.scalars(query).all()
            silent_s = self._silence.look(others)
            dead = [worker for worker in others if self._is_dead(worker, silent_s[worker.id])]
            for worker in dead:
                worker.host, worker.pid, worker.beat_at = self._host, os.getpid(), utc_now()
            return [worker.id for worker in dead]

    def _is_dead(self, worker: Worker, silent_s: float) -> bool:
        if worker.host == self._host and (worker.pid == os.getpid() or not _is_running(worker.pid)):
            return True  # my own process is never another worker: taken over before, or a reused pid
        return silent_s > self._ttl_s

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
            return session.scalar(select(func.min(Worker.id))) == self._id

    def _adopt_orphans(self) -> None:
        """Take over what was claimed by a worker without a row: one that was dead, woke up and ended."""
        running = self._client.list_workflows(status="PENDING", load_input=False, load_output=False)
        with self._db.snapshot() as session:  # read after the workflows: a new worker's row precedes its claims
            known = set(session.scalars(select(Worker.id)))
        for worker_id in {workflow.executor_id for workflow in running} - {None, *known}:
            self._requeue(str(worker_id), count=True)

    def _reconcile(self) -> None:
        """Let jobs and their workflows agree again where one of them ended, rested or was to go on alone."""
        with self._db.snapshot() as session:
            active = session.scalars(select(Job.id).where(Job.status.not_in(record.ENDED))).all()
        workflow_ids = [durable.job_workflow_id(job_id) for job_id in active]
        if not workflow_ids:
            return
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


def own_row(worker_id: str, host: str) -> Select[str]:
    """Select a worker's id as long as this process answers for it: until another worker has taken it over."""
    return select(Worker.id).where(Worker.id == worker_id, Worker.host == host, Worker.pid == os.getpid())


def host_name() -> str:
    """Name the place where a pid means the same process: machine, this boot of it, and container."""
    parts = [socket.gethostname()]
    boot_id = Path("/proc/sys/kernel/random/boot_id")
    if boot_id.exists():
        parts += [boot_id.read_text().strip()[:8], str(Path("/proc/self/ns/pid").stat().st_ino)]
    return "/".join(parts)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

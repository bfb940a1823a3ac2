"""The worker: takes jobs and chunks from the queues and runs their handlers, until it is stopped or killed.

Another worker, or the same one after its restart, takes over the work of a killed one. One worker per process, since
DBOS is one per process. It has threads for the heartbeat, the reaper, polling and each running workflow. Imports no
kind of job: handlers are handed in.
"""

import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Sequence

from dbos import DBOS, DBOSClient, SQLAlchemyDatasource

from app.db.outages import is_outage
from app.db.session import Database, close_db_engine
from app.jobs import durable
from app.jobs.context import WorkerContext
from app.jobs.handler import JobHandler
from app.jobs.heartbeat import Heartbeat, host_name, own_row
from app.jobs.reaper import Reaper
from app.jobs.workflows import Workflows
from app.tracing.spans import NO_TRACING, Tracing

logger = logging.getLogger(__name__)


class Worker:
    """The job machinery of a worker process; it is started and stopped once."""

    def __init__(
        self,
        db: Database,
        database_url: str,
        handlers: Sequence[JobHandler],
        *,
        ttl_s: float = 20.0,
        poll_s: float = 0.5,
        chunks_at_once: int = durable.CHUNKS_AT_ONCE,
        host: str | None = None,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        """Describe a worker; nothing is connected yet.

        Args:
            db: The database of the job rows.
            database_url: The same database, which has the job engine's tables too.
            handlers: One for each kind of job.
            ttl_s: Time without a heartbeat after which a worker counts as dead, in seconds, >= 2.
            poll_s: Time between two reads of a queue, in seconds, > 0; the default costs an idle worker 4 % of a core.
            chunks_at_once: Chunks that run here at a time, >= 1.
            host: Names the scope in which a pid identifies a process; default: `host_name()`.
            tracing: Makes spans of jobs and chunks.
        """
        # Never used twice: of two processes with one id, each would leave the other's work unfinished.
        self.id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._db = db
        self._url = database_url
        self._handlers = {handler.kind: handler for handler in handlers}
        self._ttl_s = ttl_s
        self._poll_s = poll_s
        self._chunks_at_once = chunks_at_once
        self._host = host or host_name()
        self._tracing = tracing
        self._stopping = threading.Event()
        self._leaving = threading.Event()

    def start(self, beside: Sequence[Callable[[threading.Event], None]] = ()) -> None:
        """Connect, take over the work of crashed workers of this machine, and begin to take work.

        Args:
            beside: Functions that run on a thread each while the worker runs, until the event that they get is set.
        """
        # The limit of idle transactions keeps a frozen worker from holding locks that others need.
        self._client = durable.JobEngineClient(self._url, idle_transaction_s=self._ttl_s)
        self._connections = durable.open_engine(self._url, pool_size=10, idle_transaction_s=self._ttl_s)
        DBOS(
            config={
                "name": durable.APPLICATION,
                "system_database_engine": self._connections,
                "dbos_system_schema": durable.SCHEMA,
                "application_version": durable.JOBS_VERSION,
                "executor_id": self.id,
                "serializer": durable.SERIALIZER,
                "run_migrations": False,
                "log_level": "WARNING",
            }
        )
        context = self._context(self._client)
        workflows = Workflows(self._handlers, context)
        workflows.register()
        self._register_queues(self._client)
        self._heartbeat = Heartbeat(self._db, worker_id=self.id, host=self._host, ttl_s=self._ttl_s)
        self._heartbeat.register()
        self._reaper = Reaper(
            self._db, self._client, self._heartbeat, workflows.on_end, workflows.queue_of, context.executions
        )
        DBOS.launch()
        watches = (
            ("worker-heartbeat", self._heartbeat.keep),
            ("worker-reaper", self._reaper.watch),
            *(("worker-beside", watch) for watch in beside),
        )
        self._watches = [
            threading.Thread(target=watch, args=(self._leaving,), name=name, daemon=True) for name, watch in watches
        ]
        for thread in self._watches:
            thread.start()
        logger.info("Worker %s is ready.", self.id)

    def stop(self, grace_s: int = 10) -> None:
        """Take no more work, let running work end, and requeue the rest.

        Args:
            grace_s: How long running work may continue, in whole seconds, >= 0; after it, work is left at its next
                cancellation point, and repeated elsewhere.
        """
        self._stopping.set()
        DBOS.destroy(destroy_registry=True, workflow_completion_timeout_sec=grace_s)
        self._leaving.set()
        for thread in self._watches:
            thread.join()
        self._withdraw()
        self._client.destroy()
        close_db_engine(self._connections)

    def run(
        self,
        stop_event: threading.Event,
        grace_s: int = 10,
        beside: Sequence[Callable[[threading.Event], None]] = (),
    ) -> None:
        """Work until the event is set, or until another worker has taken over this one's work; `beside` as `start`."""
        self.start(beside)
        while not stop_event.wait(0.1) and not self._heartbeat.lost.is_set():
            pass
        self.stop(grace_s)

    def _withdraw(self) -> None:
        try:
            self._reaper.withdraw()
        except Exception as error:
            if not is_outage(error):
                raise
            logger.warning("The database is unavailable. Another worker will take over the work of this one.")

    def _context(self, client: DBOSClient) -> WorkerContext:
        datasource = SQLAlchemyDatasource.create(
            durable.engine_url(self._url),
            engine=self._db.engine,
            schema=durable.SCHEMA,
            serializer=durable.SERIALIZER,
            run_migrations=False,
        )
        return WorkerContext(
            self._db,
            datasource,
            client,
            self._poll_s,
            self.id,
            own_row(self.id, self._host),
            self._stopping,
            self._leaving,
            tracing=self._tracing,
        )

    def _register_queues(self, client: DBOSClient) -> None:
        for name, concurrency in {**durable.QUEUES, durable.CHUNK_QUEUE: self._chunks_at_once}.items():
            client.register_queue(name, worker_concurrency=concurrency, polling_interval_sec=self._poll_s)

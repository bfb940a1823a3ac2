from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import pytest
from dbos import DBOSClient

from app.db.session import Database
from app.jobs import durable
from app.jobs.worker import Worker
from testing.pictures import Pictures


class StartWorker(Protocol):
    def __call__(self, *handlers: Any) -> AbstractContextManager[Worker]: ...


@pytest.fixture
def client(database_url: str) -> Iterator[DBOSClient]:
    """The job engine, as the reaper uses it."""
    client = durable.JobEngineClient(database_url)
    yield client
    client.destroy()


@pytest.fixture
def working(db: Database, database_url: str) -> StartWorker:
    """A worker in this process, for the length of a with block."""

    @contextmanager
    def start(*handlers: Any) -> Iterator[Worker]:
        worker = Worker(db, database_url, handlers or [Pictures()], ttl_s=8, poll_s=0.02, chunks_at_once=1)
        worker.start()
        try:
            yield worker
        finally:
            worker.stop(grace_s=0)

    return start

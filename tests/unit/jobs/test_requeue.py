"""Workflows that are requeued while the database is unavailable; real outages are in tests/crash/test_outages.py."""

import threading
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.errors import DatabaseFull, DatabaseUnavailable
from app.jobs.context import WorkerContext
from app.jobs.workflows import requeue

OUTAGES = [
    DatabaseUnavailable(),
    DatabaseFull(),
    PoolTimeout(),
    OperationalError("SELECT 1", {}, psycopg.OperationalError("[Errno -3] Temporary failure in name resolution")),
]


class Disconnected:
    """A job engine whose database is unavailable for the first calls, each time with another error."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.queued: list[tuple[str, str]] = []
        self.on_error = lambda: None

    def list_workflows(self, **asked: Any) -> list[Any]:
        if self._errors:
            self.on_error()
            raise self._errors.pop(0)
        return [SimpleNamespace(queue_name="jobs")] if asked["executor_id"] == "me" else []

    def resume_workflow(self, workflow_id: str, *, queue_name: str) -> None:
        self.queued.append((workflow_id, queue_name))


class Immediate(threading.Event):
    """An event whose waits are over at once."""

    def wait(self, timeout: float | None = None) -> bool:
        return self.is_set()


@dataclass
class FakeWorkerContext:
    client: Disconnected
    leaving: threading.Event
    worker_id: str = "me"


def run_requeue(client: Disconnected, leaving: threading.Event) -> None:
    requeue(cast(WorkerContext, FakeWorkerContext(client, leaving)), "job-1")


@pytest.mark.parametrize("num", [1, 7])
def test_a_requeue_waits_for_the_database(num: int) -> None:
    client = Disconnected(*OUTAGES * num)
    run_requeue(client, Immediate())
    assert client.queued == [("job-1", "jobs")]


def test_a_worker_that_exits_meanwhile_waits_no_longer() -> None:
    client, leaving = Disconnected(*OUTAGES * 9), Immediate()
    client.on_error = leaving.set
    run_requeue(client, leaving)
    assert client.queued == []


def test_another_error_is_left_to_the_reaper(caplog: pytest.LogCaptureFixture) -> None:
    client = Disconnected(ValueError("a secret of the implementation"))
    run_requeue(client, Immediate())
    assert client.queued == []
    assert "could not be requeued" in caplog.text

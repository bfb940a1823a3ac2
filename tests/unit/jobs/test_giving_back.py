"""Work that is given back while the database is away; real outages are in tests/crash/test_outages.py."""

import threading
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.errors import DatabaseFull, DatabaseUnavailable
from app.jobs.run import Workshop
from app.jobs.workflows import give_back

OUTAGES = [
    DatabaseUnavailable(),
    DatabaseFull(),
    PoolTimeout(),
    OperationalError("SELECT 1", {}, psycopg.OperationalError("[Errno -3] Temporary failure in name resolution")),
]


class Absent:
    """A job engine whose database is away for the first calls, each time in another way."""

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


class Hurried(threading.Event):
    """An event whose waits are over at once."""

    def wait(self, timeout: float | None = None) -> bool:
        return self.is_set()


@dataclass
class FakeWorkshop:
    client: Absent
    leaving: threading.Event
    worker_id: str = "me"


def give(client: Absent, leaving: threading.Event) -> None:
    give_back(cast(Workshop, FakeWorkshop(client, leaving)), "job-1")


@pytest.mark.parametrize("num", [1, 7])
def test_giving_back_waits_for_the_database(num: int) -> None:
    client = Absent(*OUTAGES * num)
    give(client, Hurried())
    assert client.queued == [("job-1", "jobs")]


def test_who_leaves_meanwhile_waits_no_longer() -> None:
    client, leaving = Absent(*OUTAGES * 9), Hurried()
    client.on_error = leaving.set
    give(client, leaving)
    assert client.queued == []


def test_another_fault_is_left_to_the_reaper(caplog: pytest.LogCaptureFixture) -> None:
    client = Absent(ValueError("a secret of the implementation"))
    give(client, Hurried())
    assert client.queued == []
    assert "could not be given back" in caplog.text

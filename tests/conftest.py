"""What every test has at hand: real databases, and a node with models that answer at once."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

# Processes of tests share cores. Threads of torch wait for each other in loops that keep cores from other processes:
# three processes of two threads on two cores do a thirteenth of the work of three of one. Children inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from app.db.session import Database
from app.jobs.queue import JobQueue
from testing.fake_models import FakeModels
from testing.node import Node, make_settings, serve
from testing.pictures import Pictures

pytest_plugins = ["testing.databases"]
pytest.register_assert_rewrite("tests.crash")  # its invariants say what differs, as tests do

# The longest files first: what computes beside what waits, so that two processes seldom want the same core.
_FIRST = ("tests/e2e/test_flow", "tests/crash", "tests/e2e")


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use Postgres, and order the files; `make test` hands them out in this order.

    The tests of a file keep their order.
    """
    for item in items:
        if _uses_postgres(item):
            item.add_marker(pytest.mark.postgres)

    def rank(item: pytest.Item) -> int:
        return next((rank for rank, start in enumerate(_FIRST) if item.nodeid.startswith(start)), len(_FIRST))

    items.sort(key=rank)


def _uses_postgres(item: pytest.Item) -> bool:
    """Return whether a test is the Postgres one of a pair, or takes a fixture of `testing.databases` for Postgres."""
    if not isinstance(item, pytest.Function):
        return False
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    chosen = any(isinstance(parameter, str) and parameter == "postgres" for parameter in parameters)
    return chosen or any(name.startswith("postgres_") for name in item.fixturenames)


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """Restore the severity that a command has set for its process."""
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


@pytest.fixture
def node(tmp_path: Path, database_url: str) -> Iterator[Node]:
    """A served node on a database of each kind, with models that answer at once."""
    with serve(make_settings(tmp_path / "data", database_url), FakeModels()) as served:
        yield served


@pytest.fixture
def http(node: Node) -> httpx.Client:
    """A client of that node."""
    return node.http


@pytest.fixture(scope="session")
def shared_node(tmp_path_factory: pytest.TempPathFactory, shared_database_url: str) -> Iterator[Node]:
    """A served node for all tests that change nothing but by adding images."""
    with serve(make_settings(tmp_path_factory.mktemp("node"), shared_database_url), FakeModels()) as served:
        yield served


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    """A database of each kind, opened."""
    db = Database(database_url)
    yield db
    db.close()


@pytest.fixture
def queue(db: Database, database_url: str) -> Iterator[JobQueue]:
    """A queue that knows the one kind of job of the tests of jobs."""
    queue = JobQueue(db, database_url, [Pictures()])
    yield queue
    queue.close()

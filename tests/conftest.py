"""What every test has at hand: real databases, and a node with models that answer at once."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.db.session import Database
from app.jobs.queue import JobQueue
from testing.fake_models import FakeModels
from testing.node import Node, make_settings, serve
from testing.pictures import Pictures

pytest_plugins = ["testing.databases"]
pytest.register_assert_rewrite("tests.crash")  # its invariants say what differs, as tests do

# The longest files first: what computes beside what waits, so that two processes seldom want the same core.
_FIRST = ("tests/e2e/test_flow", "tests/crash", "tests/e2e")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files, tests of a file stay as they are; `make test` hands them out in this order."""

    def rank(item: pytest.Item) -> int:
        return next((rank for rank, start in enumerate(_FIRST) if item.nodeid.startswith(start)), len(_FIRST))

    items.sort(key=rank)


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

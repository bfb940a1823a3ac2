"""A node that is soon full, one whose dataset jobs are done by hand, and nodes with settings of a test's own."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from testing.fake_models import FakeModels
from testing.node import Node, make_settings, serve
from testing.workbench import Workbench

Serve = Callable[..., AbstractContextManager[Node]]


@pytest.fixture
def small_node(tmp_path: Path, database_url: str) -> Iterator[Node]:
    """A node whose engine lets two requests wait."""
    with serve(make_settings(tmp_path / "data", database_url, max_queue_size=2), FakeModels()) as served:
        yield served


@pytest.fixture
def bench(node: Node) -> Iterator[Workbench]:
    """A node, and the hands that do its dataset jobs as a worker would."""
    bench = Workbench(node)
    yield bench
    bench.close()


@pytest.fixture(params=["httptools", "h11"])
def served(request: pytest.FixtureRequest, tmp_path: Path, sqlite_template: Path) -> Serve:
    """Serves a node with each HTTP parser and what settings a test wants, on SQLite."""
    database = tmp_path / "foxhound.db"
    shutil.copyfile(sqlite_template, database)

    @contextmanager
    def start(**changes: object) -> Iterator[Node]:
        settings = make_settings(tmp_path / "data", f"sqlite:///{database}", **changes)
        with serve(settings, FakeModels(), parser=request.param) as node:
            yield node

    return start

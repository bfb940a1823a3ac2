"""A node that is soon full, and one whose dataset jobs are done by hand."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_models import FakeModels
from tests.node import Node, make_settings, serve
from tests.workbench import Workbench


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

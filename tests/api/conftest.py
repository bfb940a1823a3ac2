"""A node that is soon full."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_models import FakeModels
from tests.node import Node, make_settings, serve


@pytest.fixture
def small_node(tmp_path: Path, database_url: str) -> Iterator[Node]:
    """A node whose engine lets two requests wait."""
    with serve(make_settings(tmp_path / "data", database_url, max_queue_size=2), FakeModels()) as served:
        yield served

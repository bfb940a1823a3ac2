"""A node with keys, for all tests."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.access.caller import Scope
from testing.api_keys import new_key
from testing.fake_models import FakeModels
from testing.node import Node, make_settings, serve


class Guarded:
    """A node with keys; one key may do what the surfaces do, the other one only reads."""

    def __init__(self, node: Node, key: str, reader: str) -> None:
        self.node = node
        self.key = key
        self.reader = reader


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Guarded]:
    """A node with keys on SQLite."""
    folder = tmp_path_factory.mktemp("guarded")
    shutil.copyfile(sqlite_template, folder / "foxhound.db")
    database = f"sqlite:///{folder}/foxhound.db"
    key = new_key(database, "writer", Scope.READ, Scope.GENERATE)
    reader = new_key(database, "reader", Scope.READ)
    with serve(make_settings(folder / "data", database), FakeModels()) as node:
        yield Guarded(node, key.key, reader.key)

"""A browser, a second site, and nodes on SQLite; every test here is a `browser` one."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from testing.chromium import Tab, chromium, other_site
from testing.chromium import tab as open_tab
from testing.fake_models import FakeModels
from testing.node import Node, make_settings, serve
from testing.workbench import Workbench

Start = Callable[..., Node]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def other_port() -> Iterator[int]:
    """The port of a server whose pages are of another origin than any node's."""
    with other_site() as port:
        yield port


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    with open_tab(browser) as tab:
        yield tab


@pytest.fixture
def start(tmp_path: Path, sqlite_template: Path) -> Iterator[Start]:
    """Serves one node with settings of a test's own."""
    shutil.copyfile(sqlite_template, tmp_path / "foxhound.db")
    with ExitStack() as held:

        def start(**changes: object) -> Node:
            settings = make_settings(tmp_path / "data", f"sqlite:///{tmp_path / 'foxhound.db'}", **changes)
            return held.enter_context(serve(settings, FakeModels()))

        yield start


@pytest.fixture
def bench(start: Start) -> Iterator[Workbench]:
    """A node with default settings, and the hands that do its jobs."""
    bench = Workbench(start())
    yield bench
    bench.close()

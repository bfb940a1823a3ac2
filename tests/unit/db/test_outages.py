"""What counts as a database that is away, by errors that the drivers really raise."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from app.db.outages import is_outage
from app.db.session import Database, make_db_engine
from app.errors import DatabaseFull, StorageFull
from testing.outages import Proxy, locked, proxied

PATHS = {
    "a folder that is not there": "sqlite:////nowhere/at/all.db",
    "a folder in the file's place": "sqlite:////tmp",
}


@pytest.fixture
def sqlite_engine(tmp_path: Path) -> Iterator[Engine]:
    engine = make_db_engine(f"sqlite:///{tmp_path / 'a.db'}")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (x TEXT UNIQUE)"))
    yield engine
    engine.dispose()


@pytest.fixture
def way(postgres_url: str) -> Iterator[Proxy]:
    with proxied(postgres_url) as proxy:
        yield proxy


def raised(engine: Engine, *statements: str) -> SQLAlchemyError:
    """Return what statements of one transaction end with."""

    def execute() -> None:
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))

    with pytest.raises(SQLAlchemyError) as caught:
        execute()
    return caught.value


@pytest.mark.parametrize("url", PATHS.values(), ids=PATHS.keys())
def test_a_file_that_cannot_be_opened_is_an_outage(url: str) -> None:
    assert is_outage(raised(make_db_engine(url), "SELECT 1"))


def test_a_full_disk_is_an_outage_of_its_own(sqlite_engine: Engine) -> None:
    error = raised(sqlite_engine, "PRAGMA max_page_count=4", "INSERT INTO t SELECT hex(randomblob(99999))")
    assert is_outage(error)
    assert error.connection_invalidated  # type: ignore[attr-defined]


def test_what_is_wrong_with_a_statement_is_no_outage(sqlite_engine: Engine, postgres_url: str) -> None:
    postgres = make_db_engine(postgres_url)
    for engine in (sqlite_engine, postgres):
        assert not is_outage(raised(engine, "SELECT nothing FROM nowhere"))
        assert not is_outage(raised(engine, "SELEC 1"))
    assert not is_outage(raised(sqlite_engine, "INSERT INTO t VALUES ('a')", "INSERT INTO t VALUES ('a')"))
    assert not is_outage(raised(postgres, "SELECT 1 / 0"))
    postgres.dispose()


def test_a_lock_of_others_is_an_outage_that_leaves_the_connection_alone(sqlite_engine: Engine) -> None:
    impatient = sqlite_engine.execution_options(foxhound_reads=True)
    with locked(sqlite_engine.url.render_as_string()):
        error = raised(impatient, "PRAGMA busy_timeout=0", "INSERT INTO t VALUES ('a')")
    assert is_outage(error)
    assert not error.connection_invalidated  # type: ignore[attr-defined]


def test_a_name_that_does_not_resolve_is_a_lost_connection(postgres_url: str) -> None:
    url = make_url(postgres_url).set(host="database.invalid", query={}).render_as_string(hide_password=False)
    error = raised(make_db_engine(url), "SELECT 1")
    assert is_outage(error)
    assert error.connection_invalidated  # type: ignore[attr-defined] # what the job engine tries again


@pytest.mark.parametrize("rudely", [True, False])
def test_a_session_that_is_cut_off_and_one_that_is_refused_are_outages(way: Proxy, rudely: bool) -> None:
    engine = make_db_engine(way.url)

    def lose() -> None:
        with engine.begin() as connection:
            connection.execute(text("SELECT 1"))
            way.drop(rudely=rudely)
            connection.execute(text("SELECT 1"))

    with pytest.raises(SQLAlchemyError) as caught:
        lose()
    assert is_outage(caught.value)
    way.cut()
    assert is_outage(raised(engine, "SELECT 1"))
    way.mend()
    engine.dispose()


@pytest.mark.parametrize(
    "statements",
    [
        ("SET TRANSACTION READ ONLY", "DELETE FROM jobs"),  # as after a failover
        ("SET LOCAL statement_timeout = 10", "SELECT pg_sleep(1)"),
        ("SELECT pg_terminate_backend(pg_backend_pid())",),
    ],
    ids=["read-only", "time limit", "ended by an operator"],
)
def test_what_a_server_cannot_do_at_the_moment_is_an_outage(postgres_url: str, statements: tuple[str, ...]) -> None:
    engine = make_db_engine(postgres_url)
    assert is_outage(raised(engine, *statements))
    engine.dispose()


def test_a_full_database_is_told_as_full_storage_and_keeps_no_lock(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path / 'a.db'}")
    with db.transaction() as session:
        session.execute(text("CREATE TABLE t (x TEXT)"))

    def fill() -> None:
        with db.transaction() as session:
            session.execute(text("PRAGMA max_page_count=2"))
            session.execute(text("INSERT INTO t SELECT hex(randomblob(99999))"))

    with pytest.raises(DatabaseFull) as full:
        fill()
    assert (full.value.status, full.value.code) == (StorageFull.status, "storage_full")
    with db.transaction() as session:
        session.execute(text("INSERT INTO t VALUES ('a')"))
    db.close()

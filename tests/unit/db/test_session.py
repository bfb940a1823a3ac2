"""What a transaction tells when its database has left it alone, or when it makes no progress."""

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from app.db.session import Database
from app.errors import DatabaseUnavailable
from testing.waiting import wait_until

SELECT_ONE = text("SELECT 1")
SESSIONS = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")


@pytest.fixture
def impatient(postgres_url: str) -> Iterator[Database]:
    """A database that ends a session as soon as it stands still within a transaction."""
    db = Database(postgres_url, idle_transaction_s=0.05)
    yield db
    db.close()


def wait_until_alone(url: str) -> None:
    watcher = Database(url)

    def is_alone() -> bool:
        with watcher.snapshot() as session:
            return session.scalar(SESSIONS) == 0

    wait_until(is_alone)
    watcher.close()


@pytest.mark.parametrize("asks_again", [True, False])
def test_a_session_that_was_ended_for_standing_still_is_a_database_that_went_away(
    impatient: Database, postgres_url: str, asks_again: bool
) -> None:
    """As in a process that was frozen there, and goes on: what it did is done again, and no failure of the work."""

    def stand_still() -> None:
        with impatient.snapshot() as session:
            session.execute(SELECT_ONE)
            wait_until_alone(postgres_url)
            if asks_again:
                session.execute(SELECT_ONE)

    with pytest.raises(DatabaseUnavailable):
        stand_still()
    with impatient.snapshot() as session:
        assert session.scalar(SELECT_ONE) == 1


SLOW_S = 0.5


@pytest.fixture
def watched(database_url: str) -> Iterator[Database]:
    """A database that names a transaction after half a second."""
    db = Database(database_url, slow_s=SLOW_S)
    yield db
    db.close()


def test_a_transaction_without_progress_is_named_while_it_is_open_and_at_its_end(
    watched: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with watched.transaction() as session:
        session.execute(text("UPDATE jobs SET kind = 'secret'"))
        wait_until(lambda: "has been open" in caplog.text)
    assert "has ended after" in caplog.text
    assert caplog.text.count("has been open") == 1
    assert "testing.waiting." in caplog.text
    assert "secret" not in caplog.text


def test_quick_transactions_are_not_named_however_many_follow_each_other(
    watched: Database, caplog: pytest.LogCaptureFixture
) -> None:
    deadline = time.monotonic() + 3 * SLOW_S
    while time.monotonic() < deadline:
        with watched.transaction() as session:
            session.execute(SELECT_ONE)
    assert "has been open" not in caplog.text


def test_on_sqlite_a_large_transaction_locks_no_reader_out_before_its_commit(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path / 'large.db'}")
    with db.transaction() as session:
        session.execute(text("CREATE TABLE large (text TEXT)"))
    with db.transaction() as session:
        for _ in range(20):  # MB, ten times SQLite's cache of pages
            session.execute(text("INSERT INTO large VALUES (:text)"), {"text": "x" * 1_000_000})
        with sqlite3.connect(tmp_path / "large.db", timeout=0) as beside:
            assert beside.execute("SELECT count(*) FROM large").fetchone() == (0,)
    with db.snapshot() as session:
        assert session.scalar(text("SELECT count(*) FROM large")) == 20
    db.close()


def test_a_connection_that_is_in_use_when_the_database_closes_is_closed_at_the_end_of_its_transaction(
    database_url: str,
) -> None:
    db = Database(database_url)
    with db.transaction() as session:
        in_use = session.connection().connection.dbapi_connection
        assert in_use is not None
        db.close()
        in_use.cursor().close()  # still open
    with pytest.raises((sqlite3.ProgrammingError, psycopg.OperationalError), match="closed"):
        in_use.cursor()

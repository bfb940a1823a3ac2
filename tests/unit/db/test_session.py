"""What a transaction tells when its database has left it alone."""

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from app.db.session import Database
from app.errors import DatabaseUnavailable
from tests.waiting import wait_until

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

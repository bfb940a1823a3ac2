"""What a full database tells, and what of any error may be logged."""

import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError

from app.db.session import Database, database_url
from app.errors import DatabaseFull, DatabaseUnavailable
from app.jobs import durable
from testing.small_disk import small_disk

MARKER = "a fox that nobody else shall know"
MEGABYTE = 2**20


def write(db: Database, num_bytes: int = MEGABYTE) -> None:
    with db.transaction() as session:
        session.execute(text("INSERT INTO blobs VALUES (:data)"), {"data": os.urandom(num_bytes).hex()})


def make_blobs(db: Database) -> None:
    with db.transaction() as session:
        session.execute(text("CREATE TABLE blobs (data TEXT)"))


def write_in_savepoint(db: Database) -> None:
    with db.transaction() as session, session.begin_nested():
        session.execute(text("INSERT INTO blobs VALUES (:data)"), {"data": os.urandom(MEGABYTE).hex()})


def is_there(db: Database) -> bool:
    with db.snapshot() as session:
        return session.scalar(text("SELECT count(*) FROM blobs")) == 0


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_sqlite_on_a_full_disk_says_so_and_still_reads() -> None:
    with small_disk(4) as disk:
        db = Database(f"sqlite:///{disk.root / 'foxhound.db'}")
        make_blobs(db)
        disk.fill()
        for attempt in (write, write_in_savepoint):
            with pytest.raises(DatabaseFull):
                attempt(db)
        assert is_there(db)
        disk.make_room()
        write(db)
        db.close()


def test_sqlite_whose_largest_file_is_reached_is_full_and_not_away(tmp_path: Path) -> None:
    """SQLite calls this a disk I/O error, as it does a quota that is used up."""
    db = Database(f"sqlite:///{tmp_path / 'foxhound.db'}")
    make_blobs(db)
    with largest_file(20_000), pytest.raises(DatabaseFull):
        write(db)
    write(db)
    db.close()


def test_sqlite_whose_folder_is_gone_is_away_and_not_full(tmp_path: Path) -> None:
    folder = tmp_path / "unmounted"
    folder.mkdir()
    db = Database(f"sqlite:///{folder / 'foxhound.db'}")
    make_blobs(db)
    db.close()
    shutil.rmtree(folder)
    with pytest.raises(DatabaseUnavailable):
        write(db)


def test_postgres_on_a_full_disk_says_so_and_still_reads(postgres_url: str) -> None:
    admin = create_engine(database_url(postgres_url), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with small_disk(4) as disk, admin.connect() as connection:
        owner = Path(connection.execute(text("SHOW data_directory")).scalar_one()).stat()
        os.chown(disk.root, owner.st_uid, owner.st_gid)
        connection.execute(text(f"CREATE TABLESPACE small LOCATION '{disk.root}'"))
        db = Database(postgres_url)
        try:
            connection.execute(text("CREATE TABLE blobs (data TEXT) TABLESPACE small"))
            connection.execute(text("ALTER TABLE blobs ALTER data SET STORAGE EXTERNAL"))
            disk.fill()
            with pytest.raises(DatabaseFull):
                write(db)
            assert is_there(db)
            disk.make_room()
            write(db)
        finally:
            db.close()
            connection.execute(text("DROP TABLE IF EXISTS blobs"))
            connection.execute(text("DROP TABLESPACE small"))


FAILING = {
    "a constraint": "INSERT INTO datasets (id, created_at, name, status, seed, classes, train_per_class, "
    "test_per_class, generation) VALUES (:value, CURRENT_TIMESTAMP, :value, :value, 0, '[]', 0, 0, '{}')",
    "a missing table": "SELECT * FROM nowhere WHERE name = :value",
}


@pytest.mark.parametrize("statement", FAILING.values(), ids=FAILING)
def test_an_error_never_shows_a_statements_values(db: Database, statement: str) -> None:
    with pytest.raises(DBAPIError) as raised, db.engine.begin() as connection:
        connection.execute(text(statement), {"value": MARKER})
    told = (raised.value, raised.value.orig, raised.value.__cause__)
    assert MARKER not in " ".join(map(str, told)) + " ".join(map(repr, told))
    assert statement[:6] in str(raised.value)  # which statement it was is told


def test_a_value_of_the_wrong_form_is_not_quoted(postgres_url: str) -> None:
    db = Database(postgres_url)
    with pytest.raises(DBAPIError) as raised, db.transaction() as session:
        session.execute(text("SELECT CAST(:value AS JSON)"), {"value": MARKER})
    assert MARKER not in f"{raised.value}{raised.value.orig}"
    assert "22P02" in str(raised.value)
    db.close()


def test_the_job_engines_errors_show_no_values_either(db: Database, database_url: str) -> None:
    table = "workflow_status" if database_url.startswith("sqlite") else "dbos.workflow_status"
    with db.transaction() as session:
        session.execute(text(f"ALTER TABLE {table} RENAME TO elsewhere"))
    client = durable.JobEngineClient(database_url)
    with pytest.raises(DBAPIError) as raised:
        client.list_workflows(workflow_ids=[MARKER])
    client.destroy()
    assert MARKER not in str(raised.value)

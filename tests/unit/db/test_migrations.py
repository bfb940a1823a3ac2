"""Our schema comes from Alembic alone and is the models'; what is not ours stays untouched."""

import os
import threading
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import CheckConstraint, NullPool, create_engine, inspect, text

import app.db.models  # noqa: F401 (fills the metadata)
from app.db.base import Base
from app.db.migrations import (
    DatabaseAhead,
    MigrationNeeded,
    NotADatabase,
    alembic_config,
    check,
    migrate,
    migration_lock,
)
from app.db.session import database_url as parse_url
from app.jobs.migrations import check_job_engine, migrate_job_engine
from testing.waiting import PATIENCE_S


def tables(url: str) -> set[str]:
    return set(inspect(create_engine(parse_url(url), poolclass=NullPool)).get_table_names())


def test_the_newest_revision_is_what_the_models_describe(database_url: str) -> None:
    with create_engine(parse_url(database_url), poolclass=NullPool).connect() as connection:
        ours = {"include_name": lambda name, type_, _parents: type_ != "table" or name in Base.metadata.tables}
        context = MigrationContext.configure(connection, opts={"compare_type": True, **ours})
        assert compare_metadata(context, Base.metadata) == []


def test_check_constraints_are_those_of_the_models(database_url: str) -> None:
    """Autogenerate does not compare them; Postgres words them anew, so there the names must do."""
    inspector = inspect(create_engine(parse_url(database_url), poolclass=NullPool))
    for table in Base.metadata.sorted_tables:
        checks = [constraint for constraint in table.constraints if isinstance(constraint, CheckConstraint)]
        found = inspector.get_check_constraints(table.name)
        assert {check.name for check in checks} == {check["name"] for check in found}
        if database_url.startswith("sqlite"):
            assert {str(check.sqltext) for check in checks} == {check["sqltext"] for check in found}


def test_down_to_nothing_and_up_again(empty_database_url: str) -> None:
    migrate(empty_database_url)
    command.downgrade(alembic_config(empty_database_url), "base")
    assert tables(empty_database_url) == {"alembic_version"}
    with pytest.raises(MigrationNeeded):
        check(empty_database_url)
    migrate(empty_database_url)
    check(empty_database_url)
    assert tables(empty_database_url) >= set(Base.metadata.tables)


def test_the_job_engines_tables_survive_ours(database_url: str) -> None:
    before = tables(database_url) - set(Base.metadata.tables)
    command.downgrade(alembic_config(database_url), "base")
    check_job_engine(database_url)
    assert tables(database_url) == before


def test_migrating_twice_is_migrating_once(database_url: str) -> None:
    migrate(database_url)
    migrate_job_engine(database_url)
    check(database_url)
    check_job_engine(database_url)


def test_an_empty_database_asks_for_the_command_by_name(empty_database_url: str) -> None:
    for is_current in (check, check_job_engine):
        with pytest.raises(MigrationNeeded, match="foxhound migrate"):
            is_current(empty_database_url)


def test_checking_creates_no_file(tmp_path: Path) -> None:
    for is_current in (check, check_job_engine):
        with pytest.raises(MigrationNeeded):
            is_current(f"sqlite:///{tmp_path / 'absent.db'}")
    assert list(tmp_path.iterdir()) == []


def test_a_database_from_the_future_is_refused(database_url: str) -> None:
    with create_engine(parse_url(database_url), poolclass=NullPool).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for attempt in (check, migrate):
        with pytest.raises(DatabaseAhead, match="newer version"):
            attempt(database_url)


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear fox,")
    for attempt in (check, migrate, check_job_engine):
        with pytest.raises(NotADatabase):
            attempt(f"sqlite:///{path}")
    assert path.read_text() == "Dear fox,"


def test_migrations_run_from_any_folder(empty_database_url: str, tmp_path: Path) -> None:
    home = Path.cwd()
    os.chdir(tmp_path)
    try:
        migrate(empty_database_url)
    finally:
        os.chdir(home)
    check(empty_database_url)


def test_the_lock_lets_one_in_at_a_time(empty_database_url: str) -> None:
    first_is_in, first_may_go, second_is_in = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with migration_lock(empty_database_url):
            first_is_in.set()
            first_may_go.wait(PATIENCE_S)

    def second() -> None:
        with migration_lock(empty_database_url):
            second_is_in.set()

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert first_is_in.wait(PATIENCE_S)
    threads[1].start()
    assert not second_is_in.wait(0.3)
    first_may_go.set()
    assert second_is_in.wait(PATIENCE_S)
    for thread in threads:
        thread.join()

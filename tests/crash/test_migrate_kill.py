"""K15 of docs/crash-suite.md: `foxhound migrate` kills itself amid a migration, and is run again."""

from pathlib import Path

from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import NullPool, create_engine, text

from app.db.migrations import alembic_config, check
from app.db.session import database_url, sqlite_path
from app.jobs.migrations import check_job_engine
from testing import processes
from testing.kills import Kill
from testing.node import make_settings
from tests.crash.house import exit_code, start, wait_for_death


def run_migrate(url: str, folder: Path, kill: Kill) -> None:
    """Run the command until it kills itself."""
    wait_for_death(start(processes.migrate, make_settings(folder, url), kill))


def revision_of(url: str) -> str | None:
    """Return the revision that the database says it has, and see that it is intact."""
    with create_engine(database_url(url), poolclass=NullPool).connect() as connection:
        if sqlite_path(url) is not None:
            assert connection.scalar(text("PRAGMA integrity_check")) == "ok"
        if not connection.dialect.has_table(connection, "alembic_version"):
            return None
        revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
        return revision


def test_a_killed_migration_leaves_the_revision_before_and_the_next_one_succeeds(
    empty_database_url: str, tmp_path: Path
) -> None:
    url, config, before = empty_database_url, alembic_config(empty_database_url), None
    for script in reversed(list(ScriptDirectory.from_config(config).walk_revisions())):
        # All of the revision is done, and its number is about to be written.
        run_migrate(url, tmp_path, Kill("statement", ("alembic_version", f"'{script.revision}'")))
        assert revision_of(url) == before
        command.upgrade(config, script.revision)
        before = script.revision
    assert revision_of(url) == before
    run_migrate(url, tmp_path, Kill("statement", ("UPDATE", "dbos_migrations"), nth=3))  # amid the job engine's own
    assert exit_code(start(processes.migrate, make_settings(tmp_path, url), None)) == 0
    check(url)
    check_job_engine(url)


def test_a_migration_killed_before_its_commit_left_nothing(empty_database_url: str, tmp_path: Path) -> None:
    run_migrate(empty_database_url, tmp_path, Kill("commit", ("INSERT INTO alembic_version",)))
    assert revision_of(empty_database_url) is None
    run_migrate(empty_database_url, tmp_path, Kill("committed", ("INSERT INTO alembic_version",)))
    check(empty_database_url)

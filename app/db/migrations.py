"""Migrates Foxhound's tables with Alembic, and provides the lock around every migration of a database.

The job engine's tables, in the same database, are migrated by `jobs/migrations.py`. `migrate` runs in the `migrate`
command; the processes of a node only call `check`.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import NullPool, create_engine, text

from app.db.session import database_url, sqlite_path

MIGRATE_COMMAND = "foxhound migrate"

_ALEMBIC_FOLDER = Path(__file__).parents[2] / "alembic"
_SQLITE_MAGIC = b"SQLite format 3\0"
_LOCK_KEY = 0x466F78_686F756E  # "Fox houn"; an arbitrary number that must stay the same in every release


class SchemaMismatch(Exception):
    """The database does not have the schema of this version of Foxhound."""


class MigrationNeeded(SchemaMismatch):
    """The database is older than this version of Foxhound."""

    def __init__(self) -> None:
        super().__init__(f"The database is not up to date. Run: {MIGRATE_COMMAND}")


class DatabaseAhead(SchemaMismatch):
    """The database is newer than this version of Foxhound."""

    def __init__(self) -> None:
        super().__init__("The database was migrated by a newer version of Foxhound. Upgrade this one.")


class NotADatabase(SchemaMismatch):
    """The file of a SQLite URL is not a SQLite database."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is not a SQLite database. It was not changed.")


def migrate(url: str) -> None:
    """Migrate Foxhound's tables to the newest revision; the caller holds `migration_lock`.

    Raises:
        SchemaMismatch: The file is not a database, or the database is newer than this version.
    """
    path = sqlite_path(url)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        refuse_foreign_file(path)
    if _revision(url) not in _known_revisions():
        raise DatabaseAhead
    command.upgrade(alembic_config(url), "head")


def check(url: str) -> None:
    """Check that Foxhound's tables are at the newest revision.

    Raises:
        SchemaMismatch: They are older or newer.
    """
    path = sqlite_path(url)
    if path is not None:
        refuse_foreign_file(path)
        if not path.exists():  # connecting would create it
            raise MigrationNeeded
    revision = _revision(url)
    if revision not in _known_revisions():
        raise DatabaseAhead
    if revision != ScriptDirectory.from_config(alembic_config(url)).get_current_head():
        raise MigrationNeeded


@contextmanager
def migration_lock(url: str) -> Iterator[None]:
    """Wait for the database's migration lock and hold it inside the block; the end of the process releases it."""
    path = sqlite_path(url)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f"{path.name}.migrate.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        return
    db_engine = create_engine(database_url(url), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with db_engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK_KEY})
        yield


def alembic_config(url: str) -> Config:
    """Return Alembic's configuration for a database; it does not depend on the working directory."""
    config = Config()
    config.set_main_option("script_location", str(_ALEMBIC_FOLDER).replace("%", "%%"))
    config.attributes["url"] = url
    return config


def refuse_foreign_file(path: Path) -> None:
    """Check that a file is a SQLite database, empty or absent.

    Raises:
        NotADatabase: It holds something else.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        start = file.read(len(_SQLITE_MAGIC))
    if start and start != _SQLITE_MAGIC:
        raise NotADatabase(path)


def _revision(url: str) -> str | None:
    with create_engine(database_url(url), poolclass=NullPool).connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def _known_revisions() -> set[str | None]:
    scripts = ScriptDirectory(str(_ALEMBIC_FOLDER))
    return {None, *(script.revision for script in scripts.walk_revisions())}

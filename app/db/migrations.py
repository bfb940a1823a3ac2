"""Our tables brought up to date by Alembic, and the one lock around every migration of a database.

Knows nothing of the job engine's tables, which stand beside ours. Runs in the `migrate` command; the
processes of a node only check.
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
_LOCK_KEY = 0x466F78_686F756E  # "Fox houn": any number, but the same in every release


class SchemaMismatch(Exception):
    """The database does not have the tables that this version of Foxhound works with."""


class MigrationNeeded(SchemaMismatch):
    """The database is older than this version of Foxhound."""

    def __init__(self) -> None:
        super().__init__(f"The database is not up to date. Run: {MIGRATE_COMMAND}")


class DatabaseAhead(SchemaMismatch):
    """The database is newer than this version of Foxhound."""

    def __init__(self) -> None:
        super().__init__("The database was migrated by a newer version of Foxhound. Upgrade this one.")


class NotADatabase(SchemaMismatch):
    """The file of a SQLite URL holds something else."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is not a SQLite database; it was left as it is.")


def migrate(url: str) -> None:
    """Bring our tables to the newest revision; take `migration_lock` around it.

    Raises:
        SchemaMismatch: The file is no database, or the database is ahead of this version.
    """
    path = sqlite_path(url)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        refuse_foreign_file(path)
    if _revision(url) not in _known_revisions():
        raise DatabaseAhead
    command.upgrade(alembic_config(url), "head")


def check(url: str) -> None:
    """Do nothing if our tables are at the newest revision.

    Raises:
        SchemaMismatch: They are not, in either direction.
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
    """Hold the database's migration lock, waiting for whoever has it; it goes with the process."""
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
    """Build Alembic's configuration for a database, wherever the process was started."""
    config = Config()
    config.set_main_option("script_location", str(_ALEMBIC_FOLDER).replace("%", "%%"))
    config.attributes["url"] = url
    return config


def refuse_foreign_file(path: Path) -> None:
    """Raise NotADatabase for a file that holds anything but a SQLite database; an empty or absent one is fine."""
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

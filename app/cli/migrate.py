"""`foxhound migrate`: migrates the database to the current schema, or copies all records to another database.

Imports no engine and no HTTP. It runs in the process of the command.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.console import out
from app.cli.settings import read_settings, refuse
from app.config import Settings

if TYPE_CHECKING:
    from app.db.session import Database

SourceUrl = Annotated[str | None, typer.Option("--from", help="Database URL to copy all records from.")]
TargetUrl = Annotated[
    str | None, typer.Option("--to", help="Database URL to copy them to; it must have no records yet.")
]


def migrate(source: SourceUrl = None, target: TargetUrl = None) -> None:
    """Migrate the database to this version's schema: Foxhound's tables and those of the job engine, under one lock.

    With `--from` and `--to`, copy all records to another database instead; the data folder stays the same. Jobs that
    have not ended are restarted there and keep the images that they have recorded.
    """
    settings = read_settings()
    with _expected_errors():
        if source is None and target is None:
            _bring_up_to_date(settings)
            out.print("The database is up to date.")
        elif source is None or target is None:
            refuse("Give both: foxhound migrate --from sqlite:///... --to postgresql://...")
        else:
            _copy(source, target, settings)


def _bring_up_to_date(settings: Settings) -> None:
    from app.db.migrations import refuse_foreign_file
    from app.db.session import sqlite_path
    from app.services.store.identity import assign_store_id, check_store
    from app.storage.layout import DataFolder

    url, folder = settings.resolved_database_url, DataFolder(settings.data_dir)
    if (path := sqlite_path(url)) is not None:
        refuse_foreign_file(path)
    check_store(url, folder)  # before a mistyped URL creates a new database
    with migrated(url) as db:
        assign_store_id(db, folder)


@contextmanager
def migrated(url: str) -> Iterator["Database"]:
    """Migrate a database to this version's schema and open it; the migration lock is held inside the block."""
    from app.db.migrations import migrate as migrate_ours
    from app.db.migrations import migration_lock
    from app.db.session import Database
    from app.jobs.migrations import migrate_job_engine

    with migration_lock(url), closing(Database(url, pool_size=1)) as db:
        migrate_ours(url)
        migrate_job_engine(url)
        yield db


def _copy(source: str, target: str, settings: Settings) -> None:
    from app.db.migrations import check, migration_lock
    from app.db.session import database_url
    from app.node.lock import lock_data_dir
    from app.services.store.identity import check_store
    from app.services.store.record_copy import copy_records
    from app.storage.layout import DataFolder

    try:
        same = database_url(source) == database_url(target)
    except Exception:  # SQLAlchemy's message may contain the password
        refuse("One of the URLs cannot be read. They begin with sqlite:/// or postgresql://.")
    if same:
        refuse("Both URLs name the same database. Nothing was done.")
    check(source)
    check_store(source, DataFolder(settings.data_dir))
    with lock_data_dir(settings.data_dir), migration_lock(source), migrated(target):
        copied = copy_records(source, target, on_progress=lambda line: out.print(line, highlight=False, soft_wrap=True))
    out.print(f"{copied.num_rows} records were copied. The old database is unchanged.", highlight=False)
    if copied.num_active:
        out.print(f"{copied.num_active} jobs that had not ended are restarted on the new database.", highlight=False)
    out.print("Set FOXHOUND_DATABASE_URL to the new database, keep FOXHOUND_DATA_DIR, and start the node.")


@contextmanager
def _expected_errors() -> Iterator[None]:
    """Print an expected error and end the command."""
    from app.db.migrations import SchemaMismatch
    from app.node.lock import DataDirInUse
    from app.services.store.identity import StoreMismatch
    from app.services.store.record_copy import CopyRefused

    try:
        yield
    except (SchemaMismatch, StoreMismatch, DataDirInUse, CopyRefused) as error:
        refuse(error)

"""The job engine's own tables, DBOS's and its datasource's, which their own migrations create and update.

On SQLite they are in the same file as ours, on Postgres in a schema of their own. The `migrate` command updates
them, under `app.db.migrations.migration_lock`; the processes of a node only check them.
"""

from dbos import DBOS, SQLAlchemyDatasource
from dbos._datasource_migration import get_datasource_migration_versions
from dbos._error import DBOSInitializationError
from dbos._sys_db import SystemDatabase
from sqlalchemy import NullPool, create_engine

from app.db.migrations import MigrationNeeded, refuse_foreign_file
from app.db.session import sqlite_path
from app.jobs import durable


def migrate_job_engine(url: str) -> None:
    """Create or update the job engine's tables."""
    durable.quiet_logging()
    DBOS.migrate(durable.engine_url(url), schema=durable.SCHEMA)
    SQLAlchemyDatasource.migrate(durable.engine_url(url), schema=durable.SCHEMA)


def check_job_engine(url: str) -> None:
    """Return if the job engine's tables have this release's version, or a newer one.

    Raises:
        SchemaMismatch: They are missing or older, or the file is no database.
    """
    path = sqlite_path(url)
    if path is not None:
        refuse_foreign_file(path)
        if not path.exists():  # connecting would create it
            raise MigrationNeeded
    _check_system_tables(url)
    _check_datasource_tables(url)


def _check_system_tables(url: str) -> None:
    # DBOS verifies at launch, but has no public function for a process that does not launch it: hence a private class.
    system = SystemDatabase.create(
        system_database_url=durable.engine_url(url),
        engine_kwargs={"pool_size": 1},
        engine=None,
        schema=durable.SCHEMA,
        serializer=durable.SERIALIZER,
        executor_id=None,
    )
    try:
        system.verify_migrations()
    except DBOSInitializationError:
        raise MigrationNeeded from None
    finally:
        system.destroy()


def _check_datasource_tables(url: str) -> None:
    db_engine = create_engine(durable.engine_url(url), poolclass=NullPool)
    with db_engine.connect() as connection:
        current, newest = get_datasource_migration_versions(
            connection, None if db_engine.dialect.name == "sqlite" else durable.SCHEMA
        )
    if current < newest:
        raise MigrationNeeded

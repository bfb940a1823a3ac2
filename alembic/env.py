"""How Alembic meets the database: `foxhound migrate` hands the URL over, a developer gives it as `-x url=...`."""

from typing import Any, Literal

from alembic import context
from sqlalchemy import JSON, NullPool, create_engine, event
from sqlalchemy.engine import Connection

import app.db.models  # noqa: F401 (fills the metadata)
from app.db.base import Base, UtcDateTime
from app.db.session import SQLITE_BUSY_TIMEOUT_MS, database_url


def include_name(name: str | None, type_: str, _parent_names: Any) -> bool:
    """Look at our own tables alone: the job engine's stand in the same SQLite file."""
    return type_ != "table" or name in Base.metadata.tables


def render_item(_type: str, item: Any, autogen_context: Any) -> str | Literal[False]:
    """Write our column types into new revisions without importing the application: it will have moved on."""
    if isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    if isinstance(item, JSON):
        autogen_context.imports.add("from sqlalchemy.dialects.postgresql import JSONB")
        return "sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), 'postgresql')"
    return False


def run_migrations() -> None:
    """Upgrade in one transaction, DDL included, so that a kill leaves one revision or the other."""
    url = context.config.attributes.get("url") or context.get_x_argument(as_dictionary=True)["url"]
    db_engine = create_engine(database_url(url), poolclass=NullPool)
    if db_engine.dialect.name == "sqlite":
        # No foreign keys here: batch mode drops and renames tables, and a drop would cascade.
        event.listen(db_engine, "connect", prepare_sqlite)
        event.listen(db_engine, "begin", begin_immediate)
    with db_engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            include_name=include_name,
            render_as_batch=True,
            transactional_ddl=True,
            render_item=render_item,
        )
        with context.begin_transaction():
            context.run_migrations()


def prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # pysqlite must not commit before DDL
    connection.execute(f"PRAGMA busy_timeout={SQLITE_BUSY_TIMEOUT_MS}")


def begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


run_migrations()

"""Opens the database for commands that work on it directly, beside a node or without one.

Imports no engine and no HTTP. It runs in the process of the command.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from app.cli.console import err
from app.cli.settings import refuse
from app.config import Settings

if TYPE_CHECKING:
    from app.db.session import Database


@contextmanager
def opened(settings: Settings) -> Iterator["Database"]:
    """Open the database, which must have the current schema; expected errors print a message and end the command."""
    from app.db.migrations import SchemaMismatch, check
    from app.db.outages import is_outage
    from app.db.session import Database
    from app.errors import AppError
    from app.services.store.identity import StoreMismatch
    from app.storage.store_id import StoreIdUnreadable

    db = Database(settings.resolved_database_url, pool_size=2)
    try:
        check(settings.resolved_database_url)
        yield db
    except (SchemaMismatch, StoreMismatch, StoreIdUnreadable, AppError) as error:
        refuse(error)
    except Exception as error:
        if not is_outage(error):
            raise
        err.print("The database does not answer. See whether it runs, and whether FOXHOUND_DATABASE_URL names it.")
        raise typer.Exit(1) from None
    finally:
        db.close()

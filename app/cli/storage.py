"""`foxhound storage`: what lies in the data folder, and what a person decides about it. Runs in the shell's process."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.console import tell
from app.cli.settings import read_settings, refuse
from app.config import Settings
from app.db.session import Database, sqlite_path

if TYPE_CHECKING:
    from app.services.store.report import Amount, Paths, StorageReport

storage_app = typer.Typer(help="The data folder: what lies in it, and whose it is.", no_args_is_help=True)


@storage_app.command()
def report(
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
    as_list: Annotated[bool, typer.Option("--list", help="Only the path of each file without a record.")] = False,
) -> None:
    """Tell bytes and files by kind, files that no record names, and records whose file is missing; change nothing."""
    from app.services.store.report import storage_report, unrecorded_paths
    from app.storage.layout import DataFolder

    settings = read_settings()
    folder = DataFolder(settings.data_dir)
    with _opened(settings) as db:
        if as_list:
            for path in unrecorded_paths(db, folder):
                tell(path)
            return
        found = storage_report(db, folder, settings.resolved_models_dir)
    if as_json:
        typer.echo(json.dumps(asdict(found)))
    else:
        for line in _lines(found, settings):
            tell(line)


@storage_app.command()
def sweep() -> None:
    """Move every file that no record names to .lost+found, however many there are; a node may run meanwhile."""
    from app.services.store.identity import check_store
    from app.services.store.recovery import sweep as sweep_files
    from app.storage.layout import DataFolder

    settings = read_settings()
    folder = DataFolder(settings.data_dir)
    with _opened(settings) as db:
        check_store(settings.resolved_database_url, folder)
        num_moved = sweep_files(db, folder, limit=None)
    tell(f"Moved {num_moved} files to {folder.root}/.lost+found. Younger ones, and those of jobs at work, stay.")


@storage_app.command()
def adopt(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Declare that the data folder is this database's, although their ids differ or records lack their files.

    Brings the database up to date as `foxhound migrate` does. Stop the folder's nodes before.
    """
    from app.cli.migrate import migrated
    from app.db.migrations import SchemaMismatch
    from app.node.lock import DataDirInUse, lock_data_dir
    from app.services.store.identity import adopt_store
    from app.storage.layout import DataFolder

    settings = read_settings()
    folder = DataFolder(settings.data_dir)
    if not yes:
        tell("Files that the database has no record of may be moved to .lost+found at the node's start.")
        typer.confirm(f"Is {folder.root} the data folder of this database?", abort=True)
    try:
        with lock_data_dir(settings.data_dir), migrated(settings.resolved_database_url) as db:
            store_id = adopt_store(db, folder)
    except (DataDirInUse, SchemaMismatch) as error:
        refuse(error)
    tell(f"The data folder {folder.root} and the database now have the id {store_id}.")


@contextmanager
def _opened(settings: Settings) -> Iterator[Database]:
    """Give the database, which must be at this version's schema; end the command in words where something is wrong."""
    from app.db.migrations import SchemaMismatch, check
    from app.errors import AppError
    from app.services.store.identity import StoreMismatch
    from app.storage.store_id import StoreIdUnreadable

    db = Database(settings.resolved_database_url, pool_size=2)
    try:
        check(settings.resolved_database_url)
        yield db
    except (SchemaMismatch, StoreMismatch, StoreIdUnreadable, AppError) as error:
        refuse(error)
    finally:
        db.close()


def _lines(found: "StorageReport", settings: Settings) -> Iterator[str]:
    where = "SQLite" if sqlite_path(settings.resolved_database_url) is not None else "Postgres"
    yield f"Store {found.store_id or 'without an id'} in {settings.data_dir.resolve()}, records in {where}"
    for kind, amount in found.kinds.items():
        yield _line(kind, amount)
    for day, amount in found.lost_found.items():
        yield _line(f".lost+found/{day}", amount)
    yield from _listed("files without a record", found.unrecorded)
    yield from _listed("records without their file", found.missing)


def _line(name: str, amount: "Amount") -> str:
    return f"{name:24} {amount.files:>10} files {amount.bytes / 1e6:>12.1f} MB"


def _listed(what: str, paths: "Paths") -> Iterator[str]:
    yield f"{paths.number} {what}{':' if paths.number else ''}"
    yield from (f"  {path}" for path in paths.examples)
    if paths.number > len(paths.examples):
        yield f"  and {paths.number - len(paths.examples)} more"

"""`foxhound storage`: reports on the data folder, moves unrecorded files away, and assigns the folder to a database.

Imports no engine and no HTTP. It runs in the process of the command, beside a node or without one.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.console import print_result
from app.cli.database import opened
from app.cli.settings import read_settings, refuse
from app.config import Settings
from app.db.session import sqlite_path

if TYPE_CHECKING:
    from app.services.store.report import Amount, Paths, StorageReport

storage_app = typer.Typer(
    help="The data folder: report on it, clean it up, assign it to a database.", no_args_is_help=True
)


@storage_app.command()
def report(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
    as_list: Annotated[bool, typer.Option("--list", help="Print only the path of each file without a record.")] = False,
) -> None:
    """Report files and bytes by kind, files without a record, and records without their file. Changes nothing."""
    from app.services.store.report import storage_report, unrecorded_paths
    from app.storage.layout import DataFolder

    settings = read_settings()
    folder = DataFolder(settings.data_dir)
    with opened(settings) as db:
        if as_list:
            for path in unrecorded_paths(db, folder):
                print_result(path)
            return
        found = storage_report(db, folder, settings.resolved_models_dir)
    if as_json:
        typer.echo(json.dumps(asdict(found)))
    else:
        for line in _lines(found, settings):
            print_result(line)


@storage_app.command()
def sweep() -> None:
    """Move all files without a record to .lost+found. A node may run meanwhile."""
    from app.services.store.identity import check_store
    from app.services.store.recovery import sweep as sweep_files
    from app.storage.layout import DataFolder

    settings = read_settings()
    folder = DataFolder(settings.data_dir)
    with opened(settings) as db:
        check_store(settings.resolved_database_url, folder)
        num_moved = sweep_files(db, folder, limit=None)
    print_result(f"Moved {num_moved} files to {folder.root}/.lost+found. Recent files and files of active jobs stay.")


@storage_app.command()
def adopt(yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False) -> None:
    """Assign the data folder to this database, although their ids differ or files of records are missing.

    Migrates the database as `foxhound migrate` does. Stop all nodes of the folder first.
    """
    from app.cli.migrate import migrated
    from app.db.migrations import SchemaMismatch
    from app.node.lock import DataDirInUse, lock_data_dir
    from app.services.store.identity import adopt_store
    from app.storage.layout import DataFolder

    settings = read_settings()
    folder = DataFolder(settings.data_dir)
    if not yes:
        print_result("The next start of a node may move files without a record to .lost+found.")
        typer.confirm(f"Is {folder.root} the data folder of this database?", abort=True)
    try:
        with lock_data_dir(settings.data_dir), migrated(settings.resolved_database_url) as db:
            store_id = adopt_store(db, folder)
    except (DataDirInUse, SchemaMismatch) as error:
        refuse(error)
    print_result(f"The data folder {folder.root} and the database now have the id {store_id}.")


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

"""`foxhound storage`: reports on the data folder, removes old images, and puts folder and database right.

Imports no engine and no HTTP. It runs in the process of the command, beside a node or without one.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.connection import AsJson
from app.cli.console import print_result
from app.cli.database import opened
from app.cli.settings import read_settings, refuse
from app.config import Settings

if TYPE_CHECKING:
    from app.services.store.report import Amount, Paths, RetentionReport, StorageReport
    from app.services.store.retention import Removed, Retention

storage_app = typer.Typer(
    help="The data folder: report on it, remove old images, clean it up, assign it to a database.", no_args_is_help=True
)


@storage_app.command()
def report(
    as_json: AsJson = False,
    as_list: Annotated[bool, typer.Option("--list", help="Print only the path of each file without a record.")] = False,
) -> None:
    """Report what takes space, what retention would remove, and where files and records disagree. Changes nothing."""
    from app.services.store.report import storage_report, unrecorded_paths
    from app.services.store.retention import Retention
    from app.storage.layout import DataFolder

    settings = read_settings()
    folder = DataFolder(settings.data_dir)
    with opened(settings) as db:
        if as_list:
            for path in unrecorded_paths(db, folder):
                print_result(path)
            return
        retention = Retention(settings.keep_images_days, settings.keep_images_gb)
        found = storage_report(db, folder, settings.resolved_models_dir, retention)
    if as_json:
        typer.echo(_json({**asdict(found), "reserve_mb": settings.reserve_mb}))
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
def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only report what would be removed.")] = False,
    days: Annotated[
        float | None, typer.Option(min=0, help="Remove older images. Default: FOXHOUND_KEEP_IMAGES_DAYS.")
    ] = None,
    gb: Annotated[
        float | None, typer.Option(min=0, help="Keep so many gigabytes of images. Default: FOXHOUND_KEEP_IMAGES_GB.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Remove old images of /generate, oldest first. Images of datasets stay. A node may run meanwhile."""
    from app.services.store import retention as store
    from app.services.store.identity import check_store
    from app.storage.layout import DataFolder
    from app.storage.reserve import reserve_of

    settings = read_settings()
    url = settings.resolved_database_url
    folder = DataFolder(settings.data_dir, reserve_of(settings.data_dir, url, settings.reserve_mb))
    limits = store.Retention(
        settings.keep_images_days if days is None else days, settings.keep_images_gb if gb is None else gb
    )
    with opened(settings) as db:
        check_store(url, folder)
        removed = store.would_remove(db, limits) if dry_run else store.prune(db, folder, limits)
    if as_json:
        named = {"dry_run": dry_run, "keep_images_days": limits.days, "keep_images_gb": limits.gigabytes}
        typer.echo(_json({**named, **asdict(removed)}))
    else:
        for line in _pruned(removed, limits, dry_run=dry_run):
            print_result(line)


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
    from app.db.session import sqlite_path

    where = "SQLite" if sqlite_path(settings.resolved_database_url) is not None else "Postgres"
    yield f"Store {found.store_id or 'without an id'} in {settings.data_dir.resolve()}, records in {where}"
    for kind, amount in found.kinds.items():
        yield _line(kind, amount)
    for day, amount in found.lost_found.items():
        yield _line(f".lost+found/{day}", amount)
    yield f"{'database':24} {'':>10}       {found.database_bytes / 1e6:>12.1f} MB"
    yield f"rows: {', '.join(f'{name} {number}' for name, number in found.rows.items())}"
    yield f"{found.free_bytes / 1e6:.1f} MB free, of which {settings.reserve_mb} MB are reserved for deletions"
    yield from _retained(found.retention)
    yield from _listed("files without a record", found.unrecorded)
    yield from _listed("records without their file", found.missing)


def _retained(retention: "RetentionReport") -> Iterator[str]:
    yield f"images of /generate are kept {_limits(retention.keep_images_days, retention.keep_images_gb)}"
    yield f"a prune would remove {_amount_removed(retention.would_remove)}"
    if retention.unfinished:
        yield f"{retention.unfinished} files of deletions are still to be removed; `foxhound storage prune` does it"
    run = retention.last_run
    if run is not None:
        end = "not finished" if run.finished_at is None else f"finished at {run.finished_at:%H:%M:%S} UTC"
        yield f"last daily run: {run.day}, {end}, {run.images} images of {run.generations} generations removed, " + (
            f"{run.bytes / 1e6:.1f} MB"
        )


def _pruned(removed: "Removed", limits: "Retention", *, dry_run: bool) -> Iterator[str]:
    if not limits.is_limited:
        yield "Nothing limits what is kept. Give --days or --gb, or set FOXHOUND_KEEP_IMAGES_DAYS or _GB."
        return
    yield f"Images of /generate are kept {_limits(limits.days, limits.gigabytes)}."
    yield f"{'Would remove' if dry_run else 'Removed'} {_amount_removed(removed)}."


def _limits(days: float | None, gigabytes: float | None) -> str:
    limits = []
    if days is not None:
        limits.append(f"up to an age of {days:g} days")
    if gigabytes is not None:
        limits.append(f"up to {gigabytes:g} GB in total")
    return " and ".join(limits) or "for ever"


def _amount_removed(removed: "Removed") -> str:
    if removed.oldest is None or removed.newest is None:
        return "nothing"
    times = f"recorded from {removed.oldest:%Y-%m-%d %H:%M} to {removed.newest:%Y-%m-%d %H:%M} UTC"
    return f"{removed.images} images of {removed.generations} generations, {removed.bytes / 1e6:.1f} MB, {times}"


def _json(values: dict[str, Any]) -> str:
    """Return JSON; times are in ISO 8601."""
    return json.dumps(values, default=lambda time: time.isoformat())


def _line(name: str, amount: "Amount") -> str:
    return f"{name:24} {amount.files:>10} files {amount.bytes / 1e6:>12.1f} MB"


def _listed(what: str, paths: "Paths") -> Iterator[str]:
    yield f"{paths.number} {what}{':' if paths.number else ''}"
    yield from (f"  {path}" for path in paths.examples)
    if paths.number > len(paths.examples):
        yield f"  and {paths.number - len(paths.examples)} more"

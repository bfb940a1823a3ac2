"""The storage report: files by kind, rows by table, what retention would remove, and where files and records disagree.

Changes nothing. It walks the folder and reads paths in pages, so that memory does not grow with the number of files.
While a node runs, a file that is being written or removed may be reported as unrecorded or missing. Imports no job and
no engine. Runs on the main thread of `foxhound storage`.
"""

import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from sqlalchemy import FromClause, func, select, table, text
from sqlalchemy.orm import Session

from app.db.base import Base
from app.db.models import Image, PruneRun, TrainedModel
from app.db.session import Database, sqlite_path
from app.services.store.recovery import unrecorded
from app.services.store.removal import num_unfinished
from app.services.store.retention import Removed, Retention, would_remove
from app.storage.files import TEMPORARIES
from app.storage.inventory import files_below, paths_below
from app.storage.layout import FINE_TUNING, LOST_FOUND, TRASH, DataFolder
from app.storage.reserve import BALLAST
from app.storage.store_id import read_store_id

# Most paths that a report names from each list.
MAX_EXAMPLES = 20

_KINDS = (
    "images",
    "datasets",
    "rejected",
    "models",
    FINE_TUNING,
    "features",
    "exports",
    "thumbnails",
    TEMPORARIES,
    TRASH,
    BALLAST,
)
# The tables that grow with use; the second list are the job engine's.
_TABLES = ("generations", "images", "jobs", "evaluations", "models", "idempotency_keys", "prune_runs")
_JOB_ENGINE_TABLES = ("workflow_status", "operation_outputs")
_RECORDED = {"images": Image.path, "datasets": Image.path, "rejected": Image.path, "models": TrainedModel.path}
_PAGE = 1_000


@dataclass(slots=True)
class Amount:
    """The number of some files, and their total size in bytes."""

    files: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Paths:
    """The number of some paths, and the first of them, relative to the data folder."""

    number: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(slots=True)
class LastRun:
    """The last daily removal of generated images.

    Attributes:
        day: In UTC, as 2026-12-01.
        started_at: When a worker began it.
        finished_at: When a worker ended it; None: it is under way, or its worker has died and none has continued it.
        generations: Number of generations removed.
        images: Number of their images.
        bytes: Total size of the images' files, in bytes.
    """

    day: str
    started_at: datetime
    finished_at: datetime | None
    generations: int
    images: int
    bytes: int


@dataclass(slots=True)
class RetentionReport:
    """How long generated images are kept.

    Attributes:
        keep_images_days: The setting; None: for ever.
        keep_images_gb: The setting; None: no limit.
        would_remove: What a prune would remove now.
        unfinished: Files of deletions that are not removed yet.
        last_run: The last daily removal; None if there was none.
    """

    keep_images_days: float | None
    keep_images_gb: float | None
    would_remove: Removed
    unfinished: int
    last_run: LastRun | None


@dataclass(slots=True)
class StorageReport:
    """The content of `foxhound storage report`.

    Attributes:
        store_id: The id of the data folder.
        free_bytes: Free space on the disk of the data folder, in bytes.
        database_bytes: Size of the database with the job engine's tables, in bytes.
        rows: Number of rows of the tables that grow, the job engine's included.
        kinds: Amount of each kind of file; `packs` may be outside of the data folder.
        lost_found: Amount in `.lost+found`, by date.
        retention: What retention would remove, and has removed last.
        unrecorded: Files that no record names.
        missing: Paths of records whose file does not exist.
    """

    store_id: str | None
    free_bytes: int
    database_bytes: int
    rows: dict[str, int]
    kinds: dict[str, Amount]
    lost_found: dict[str, Amount]
    retention: RetentionReport
    unrecorded: Paths
    missing: Paths


def storage_report(db: Database, folder: DataFolder, packs: Path, retention: Retention) -> StorageReport:
    """Read every file's size and every record's path.

    Args:
        db: The database with the records.
        folder: The data folder.
        packs: The folder of fetched model packs.
        retention: The limits of the settings.

    Raises:
        StoreIdUnreadable: The folder's id is damaged.
    """
    lost = folder.root / LOST_FOUND
    days = sorted(path.name for path in lost.iterdir()) if lost.is_dir() else []
    return StorageReport(
        store_id=read_store_id(folder.root),
        free_bytes=_free_bytes(folder.root),
        database_bytes=_database_bytes(db),
        rows=dict(_rows(db)),
        kinds={**{kind: _amount(folder.root / kind) for kind in _KINDS}, "packs": _amount(packs)},
        lost_found={day: _amount(lost / day) for day in days},
        retention=_retention_report(db, retention),
        unrecorded=_paths(unrecorded_paths(db, folder)),
        missing=_paths(missing_paths(db, folder)),
    )


def unrecorded_paths(db: Database, folder: DataFolder) -> Iterator[str]:
    """Yield the path of each file that no record names, of any age, and of each file in the trash."""
    for kind, column in _RECORDED.items():
        yield from unrecorded(db, paths_below(folder.root, kind), column)
    for dataset_id in folder.trashed_datasets():
        yield from paths_below(folder.root, folder.trash_path(dataset_id))


def missing_paths(db: Database, folder: DataFolder) -> Iterator[str]:
    """Yield the path of each record whose file does not exist."""
    for entity in (Image, TrainedModel):
        after = ""
        while True:
            query = select(entity.id, entity.path).where(entity.id > after).order_by(entity.id).limit(_PAGE)
            with db.snapshot() as session:
                rows = session.execute(query).all()
            if not rows:
                break
            yield from (path for _, path in rows if not (folder.root / path).is_file())
            after = rows[-1][0]


def _retention_report(db: Database, retention: Retention) -> RetentionReport:
    with db.snapshot() as session:
        run = session.scalars(select(PruneRun).order_by(PruneRun.day.desc()).limit(1)).first()
        unfinished = num_unfinished(session)
    last = None
    if run is not None:
        amounts = (run.num_generations, run.num_images, run.num_bytes)
        last = LastRun(run.day, run.started_at, run.finished_at, *amounts)
    return RetentionReport(retention.days, retention.gigabytes, would_remove(db, retention), unfinished, last)


def _free_bytes(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def _database_bytes(db: Database) -> int:
    path = sqlite_path(db.engine.url.render_as_string(hide_password=False))
    if path is not None:
        files = (path.with_name(f"{path.name}{suffix}") for suffix in ("", "-wal", "-journal"))
        return sum(file.stat().st_size for file in files if file.exists())
    with db.snapshot() as session:
        return session.scalar(text("SELECT pg_database_size(current_database())")) or 0


def _rows(db: Database) -> Iterator[tuple[str, int]]:
    """Yield the number of rows of each table that grows, each counted in a snapshot of its own."""
    for name in _TABLES:
        with db.snapshot() as session:
            yield name, _num_rows(session, Base.metadata.tables[name])
    schema = "dbos" if db.engine.dialect.name == "postgresql" else None
    for name in _JOB_ENGINE_TABLES:
        with db.snapshot() as session:
            yield name, _num_rows(session, table(name, schema=schema))


def _num_rows(session: Session, counted: FromClause) -> int:
    return session.scalar(select(func.count()).select_from(counted)) or 0


def _amount(folder: Path) -> Amount:
    if folder.is_file():
        return Amount(1, folder.stat().st_size)
    amount = Amount()
    for entry in files_below(folder):
        try:
            amount.bytes += entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            continue
        amount.files += 1
    return amount


def _paths(paths: Iterable[str]) -> Paths:
    remaining = iter(paths)
    examples = list(itertools.islice(remaining, MAX_EXAMPLES))
    return Paths(len(examples) + sum(1 for _ in remaining), examples)

"""The storage report: the files of the data folder by kind, files without a record and records without a file.

Changes nothing. It walks the folder and reads paths in pages, so that memory does not grow with the number of files.
While a node runs, a file that is being written or removed may be reported as unrecorded or missing. Imports no job and
no engine. Runs on the main thread of `foxhound storage`.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select

from app.db.models import Image, TrainedModel
from app.db.session import Database
from app.services.store.recovery import unrecorded
from app.storage.inventory import files_below, paths_below
from app.storage.layout import FINE_TUNING, LOST_FOUND, DataFolder
from app.storage.store_id import read_store_id

# Most paths that a report names from each list.
MAX_EXAMPLES = 20

_KINDS = ("images", "datasets", "rejected", "models", FINE_TUNING, "features", "exports")
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
class StorageReport:
    """The content of `foxhound storage report`.

    Attributes:
        store_id: The id of the data folder.
        kinds: Amount of each kind of file; `packs` may be outside of the data folder.
        lost_found: Amount in `.lost+found`, by date.
        unrecorded: Files that no record names.
        missing: Paths of records whose file does not exist.
    """

    store_id: str | None
    kinds: dict[str, Amount]
    lost_found: dict[str, Amount]
    unrecorded: Paths
    missing: Paths


def storage_report(db: Database, folder: DataFolder, packs: Path) -> StorageReport:
    """Read every file's size and every record's path; `packs` is the folder of fetched model packs.

    Raises:
        StoreIdUnreadable: The folder's id is damaged.
    """
    lost = folder.root / LOST_FOUND
    days = sorted(path.name for path in lost.iterdir()) if lost.is_dir() else []
    return StorageReport(
        store_id=read_store_id(folder.root),
        kinds={**{kind: _amount(folder.root / kind) for kind in _KINDS}, "packs": _amount(packs)},
        lost_found={day: _amount(lost / day) for day in days},
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
    for table in (Image, TrainedModel):
        after = ""
        while True:
            query = select(table.id, table.path).where(table.id > after).order_by(table.id).limit(_PAGE)
            with db.snapshot() as session:
                rows = session.execute(query).all()
            if not rows:
                break
            yield from (path for _, path in rows if not (folder.root / path).is_file())
            after = rows[-1][0]


def _amount(folder: Path) -> Amount:
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

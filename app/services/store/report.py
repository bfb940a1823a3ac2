"""What lies in the data folder, by kind, and where files and records disagree. Changes nothing.

Walks the folder and reads the paths in pages, so that a million files need no more memory than a thousand. Beside a
running node a file that is just being written or removed may be told as unrecorded, or as missing.
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
from app.storage.layout import LOST_FOUND, DataFolder
from app.storage.store_id import read_store_id

# What a report shows of the files of a list.
MAX_EXAMPLES = 20

_KINDS = ("images", "datasets", "rejected", "models", "features")
_RECORDED = {"images": Image.path, "datasets": Image.path, "rejected": Image.path, "models": TrainedModel.path}
_PAGE = 1_000


@dataclass(slots=True)
class Amount:
    """Some files: how many, and how large they are together, in bytes."""

    files: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Paths:
    """Some paths, relative to the data folder: how many there are, and the first of them."""

    number: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(slots=True)
class StorageReport:
    """Everything that `foxhound storage report` tells.

    Attributes:
        store_id: The id of the data folder.
        kinds: Amount of each kind of file; `packs` may lie outside of the data folder.
        lost_found: Amount in `.lost+found`, by date.
        unrecorded: Files that no record names.
        missing: Records whose file is not there.
    """

    store_id: str | None
    kinds: dict[str, Amount]
    lost_found: dict[str, Amount]
    unrecorded: Paths
    missing: Paths


def storage_report(db: Database, folder: DataFolder, packs: Path) -> StorageReport:
    """Look at every file and every record's path; `packs` is where model packs are fetched to.

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
    """Give the path of each file that no record names, of whatever age, and of datasets whose deletion was begun."""
    for kind, column in _RECORDED.items():
        yield from unrecorded(db, paths_below(folder.root, kind), column)
    for dataset_id in folder.trashed_datasets():
        yield from paths_below(folder.root, folder.trash_path(dataset_id))


def missing_paths(db: Database, folder: DataFolder) -> Iterator[str]:
    """Give the path of each record whose file is not there."""
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

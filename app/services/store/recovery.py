"""Files that no record names: what processes left that died between file and row, and what another database recorded.

The two look alike, so nothing is deleted here: files are moved to `.lost+found` (`app/storage/lost_found.py`), and a
sweep that would move more than a few moves none. Knows no single kind of work. `sweep` runs in the API process before
it serves; what a job left undone is set aside by its worker, see `DatasetImages.cleanup`. Other nodes may be at work in
the same folder and database meanwhile.
"""

import itertools
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import QueryableAttribute

from app.db.models import ACTIVE_DATASET_STATUSES, ACTIVE_JOB_STATUSES, Dataset, Image, Job, TrainedModel
from app.db.session import Database
from app.storage.inventory import paths_below
from app.storage.layout import DataFolder
from app.storage.lost_found import set_aside, set_tree_aside

logger = logging.getLogger(__name__)

# A killed node leaves up to 16 images of a generation, or two chunks of eight images with up to three tries each. What
# is more than this was rather recorded by another database.
MAX_SWEPT = 64

# A file of a generation that is written and not yet recorded is younger; so is one of a node that is at work.
_OLDER_THAN_S = 3_600.0
# Paths looked up together; SQLite takes no more than 32,766 values in a statement.
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class _Stray:
    """A file that no record names.

    Attributes:
        path: Where it is, relative to the data folder.
        dataset_id: The dataset in whose folder it lies; None elsewhere.
        tree: The folder that goes as a whole, since no dataset has its name; None elsewhere.
    """

    path: str
    dataset_id: str | None = None
    tree: str | None = None


def sweep(db: Database, folder: DataFolder, *, limit: int | None = MAX_SWEPT) -> int:
    """Set aside what no record names: a look at each file and each image's path, seconds for a million.

    Args:
        db: Where the records are.
        folder: Where the files are.
        limit: Most files that may be moved; where there are more, none is. None where a person asked for it.

    Returns:
        How many files were moved.
    """
    for dataset_id in folder.taken_datasets():
        _settle_taken(db, folder, dataset_id)
    strays, num_moved = _strays(db, folder), 0
    found = list(itertools.islice(strays, _AT_ONCE if limit is None else limit + 1))
    if limit is not None and len(found) > limit:
        num_found = len(found) + sum(1 for _ in strays)
        logger.warning(
            "%d files in the data folder are named by no record, more than a killed process leaves: nothing was moved. "
            "Is this the right database, and not an older copy? `foxhound storage report` lists the files; "
            "`foxhound storage sweep` moves them to .lost+found.",
            num_found,
        )
        return 0
    while found:
        num_moved += _move(db, folder, found)
        found = list(itertools.islice(strays, _AT_ONCE))
    tell_moved(num_moved)
    return num_moved


def set_unrecorded_aside(
    db: Database, folder: DataFolder, dataset_id: str, *, unless_in: Iterable[str] = (), among: Set[str] | None = None
) -> int:
    """Set aside the files of a dataset, kept and rejected ones, that no row names.

    Args:
        db: Where the rows are.
        folder: Where the files are.
        dataset_id: Whose files; one that is gone has none.
        unless_in: Statuses of the dataset in which it is left alone.
        among: The relative paths to look at; default: all files of the dataset.

    Returns:
        How many files were moved.
    """
    with db.snapshot() as session:
        dataset = session.get(Dataset, dataset_id)
        if dataset is None:
            return 0
        paths = set(folder.dataset_paths(dataset.name)) if among is None else set(among)
        unrecorded = paths - _recorded(session, dataset_id)
    if not unrecorded:
        return 0
    with db.transaction() as session:  # looks again, holding the row: nobody uploads or begins a job meanwhile
        dataset = session.get(Dataset, dataset_id, with_for_update=True, populate_existing=True)
        if dataset is None or dataset.status in tuple(unless_in):
            return 0
        return set_aside(folder, unrecorded - _recorded(session, dataset_id))


def clear_for(session: Session, folder: DataFolder, dataset: Dataset, *, uploads_alone: bool = False) -> None:
    """Set aside what lies in a dataset's folders and is not its own; in a transaction that holds the dataset's row.

    Args:
        session: The transaction.
        folder: Where the files are.
        dataset: Whose folders; one without a recorded image finds them empty after this.
        uploads_alone: Look at no names but those of uploads, which are written over where a position seems free.
    """
    own = select(Image.path).where(Image.dataset_id == dataset.id)
    if session.scalar(own.limit(1)) is None:
        tell_moved(sum(set_tree_aside(folder, tree) for tree in folder.trees(dataset.name)))
        return
    paths = folder.uploads(dataset.name) if uploads_alone else set(folder.dataset_paths(dataset.name))
    if uploads_alone:
        own = own.where(Image.source == "real")
    tell_moved(set_aside(folder, paths - set(session.scalars(own))))


def settle_deletion(db: Database, folder: DataFolder, dataset_id: str) -> None:
    """Bring the deletion of a dataset to its end: its files go if its row is gone, and come back if it is not.

    For the process that deletes it: it alone knows that the row is gone on purpose.
    """
    if not _put_back(db, folder, dataset_id):
        folder.drop_taken_dataset(dataset_id)


def unrecorded(db: Database, paths: Iterable[str], column: QueryableAttribute[str]) -> Iterator[str]:
    """Give those of the paths that no row names in this column."""
    remaining = iter(paths)
    while batch := list(itertools.islice(remaining, _AT_ONCE)):
        with db.snapshot() as session:
            known = set(session.scalars(select(column).where(column.in_(batch))))
        yield from (path for path in batch if path not in known)


def _settle_taken(db: Database, folder: DataFolder, dataset_id: str) -> None:
    """Put back the files of a dataset whose deletion did not happen; set aside those of one that is not known.

    The second kind was deleted, by a process that died at once after its commit, or is newer than this copy of the
    database. They are out of sight already, so their number does not matter.
    """
    if not _put_back(db, folder, dataset_id) and folder.is_taken_since(dataset_id, _OLDER_THAN_S):
        tell_moved(set_tree_aside(folder, folder.taken_tree(dataset_id)))


def _put_back(db: Database, folder: DataFolder, dataset_id: str) -> bool:
    with db.transaction() as session:
        dataset = session.get(Dataset, dataset_id, with_for_update=True)
        if dataset is not None:
            folder.put_dataset_back(dataset.name, dataset_id)
    return dataset is not None


def _strays(db: Database, folder: DataFolder) -> Iterator[_Stray]:
    idle = folder.idle_datasets()  # first, since a dataset's row is there before its folder
    with db.snapshot() as session:
        datasets = session.execute(select(Dataset.id, Dataset.name, Dataset.status)).all()
        at_work = set(session.scalars(select(Job.kind).where(Job.status.in_(ACTIVE_JOB_STATUSES)).distinct()))
    for dataset_id, name, status in datasets:
        if status not in ACTIVE_DATASET_STATUSES:
            for path in unrecorded(db, folder.dataset_paths(name), Image.path):
                yield _Stray(path, dataset_id=dataset_id)
    for tree in _trees_of_nobody(folder, idle - {name for _, name, _ in datasets}):
        yield from (_Stray(path, tree=tree) for path in paths_below(folder.root, tree))
    if "generate" not in at_work:  # a job records its files at its end, and may rest for days before
        yield from map(_Stray, unrecorded(db, _old(folder, "images"), Image.path))
    if "train" not in at_work:
        yield from map(_Stray, unrecorded(db, _old(folder, "models"), TrainedModel.path))


def _move(db: Database, folder: DataFolder, strays: list[_Stray]) -> int:
    """Set these files aside, each after a second look at the records."""
    by_dataset: defaultdict[str, set[str]] = defaultdict(set)
    for stray in strays:
        if stray.dataset_id is not None:
            by_dataset[stray.dataset_id].add(stray.path)
    num_moved = sum(
        set_unrecorded_aside(db, folder, dataset_id, unless_in=ACTIVE_DATASET_STATUSES, among=paths)
        for dataset_id, paths in by_dataset.items()
    )
    trees = sorted({stray.tree for stray in strays if stray.tree is not None})
    with db.snapshot() as session:
        named = set(session.scalars(select(Dataset.name).where(Dataset.name.in_([_name_of(tree) for tree in trees]))))
    num_moved += sum(set_tree_aside(folder, tree) for tree in trees if _name_of(tree) not in named)
    paths = [stray.path for stray in strays if stray.dataset_id is None and stray.tree is None]
    for column in (Image.path, TrainedModel.path):
        paths = list(unrecorded(db, paths, column))
    return num_moved + set_aside(folder, paths)


def _recorded(session: Session, dataset_id: str) -> Set[str]:
    return set(session.scalars(select(Image.path).where(Image.dataset_id == dataset_id)))


def _trees_of_nobody(folder: DataFolder, names: Set[str]) -> list[str]:
    return [tree for name in sorted(names) for tree in folder.trees(name)]


def _name_of(tree: str) -> str:
    return tree.rpartition("/")[2]


def _old(folder: DataFolder, kind: str) -> Iterator[str]:
    return paths_below(folder.root, kind, older_than_s=_OLDER_THAN_S)


def tell_moved(num_moved: int) -> None:
    """Say in the log how many files were moved, and where to; nothing for none."""
    if num_moved:
        logger.warning("Moved %d files that no record names to .lost+found in the data folder.", num_moved)

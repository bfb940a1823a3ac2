"""Recovery after a crash: files without a record are moved to `.lost+found`, and interrupted deletions are resolved.

A file has no record if its process was killed between file and row, or if another database recorded it. The two cannot
be told apart, so nothing is deleted here (see `app/storage/lost_found.py`), and a sweep that would move more than
`MAX_SWEPT` files moves none. Imports no job and no engine. `sweep` runs on the main thread of the API process before it
serves; the other functions run on the caller's thread. Other nodes may use the same folder and database meanwhile.
"""

import itertools
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import QueryableAttribute

from app.db.models import ACTIVE_DATASET_STATUSES, ACTIVE_JOB_STATUSES, Dataset, Image, Job, RemovedFile, TrainedModel
from app.db.session import Database
from app.storage.exports import exported_models, forget_exports
from app.storage.inventory import paths_below
from app.storage.layout import FINE_TUNING, DataFolder
from app.storage.lost_found import move_to_lost_found, move_tree_to_lost_found

logger = logging.getLogger(__name__)

# A killed node leaves up to 16 images of a generation, or two chunks of eight images with up to three attempts each.
# More files than this were probably recorded by another database.
MAX_SWEPT = 64

# Only files that are older, in seconds: a running node may be about to record a younger one.
_OLDER_THAN_S = 3_600.0
# Paths in one query; SQLite accepts at most 32,766 values in a statement.
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class _Unrecorded:
    """A file that no record names.

    Attributes:
        path: Relative to the data folder.
        dataset_id: The dataset whose folder contains the file; None if there is none.
        tree: The folder that is moved as a whole because no dataset has its name; None if there is none.
    """

    path: str
    dataset_id: str | None = None
    tree: str | None = None


def sweep(db: Database, folder: DataFolder, *, limit: int | None = MAX_SWEPT) -> int:
    """Move files that no record names to `.lost+found`; reads every path, which takes seconds for a million files.

    Args:
        db: The database with the records.
        folder: The data folder.
        limit: Most files to move, >= 0; if there are more, none is moved. None: no limit.

    Returns:
        How many files were moved.
    """
    for dataset_id in folder.trashed_datasets():
        _recover_trashed(db, folder, dataset_id)
    _forget_old_exports(db, folder)
    files, num_moved = _unrecorded_files(db, folder), 0
    found = list(itertools.islice(files, _AT_ONCE if limit is None else limit + 1))
    if limit is not None and len(found) > limit:
        num_found = len(found) + sum(1 for _ in files)
        logger.warning(
            "No record names %d files in the data folder. A killed process leaves fewer, so nothing was moved. "
            "Check that this is the right database and not an older copy. `foxhound storage report` lists the files; "
            "`foxhound storage sweep` moves them to .lost+found.",
            num_found,
        )
        return 0
    while found:
        num_moved += _move(db, folder, found)
        found = list(itertools.islice(files, _AT_ONCE))
    log_moved(num_moved)
    return num_moved


def move_unrecorded(
    db: Database, folder: DataFolder, dataset_id: str, *, unless_in: Iterable[str] = (), among: Set[str] | None = None
) -> int:
    """Set aside the files of a dataset, kept and rejected ones, that no row names.

    Args:
        db: The database with the records.
        folder: The data folder.
        dataset_id: The dataset; one that does not exist has no files.
        unless_in: Statuses of the dataset in which nothing is moved.
        among: Relative paths to check; None: all files of the dataset.

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
    with db.transaction() as session:  # reads again with the row locked, which excludes uploads and new jobs
        dataset = session.get(Dataset, dataset_id, with_for_update=True, populate_existing=True)
        if dataset is None or dataset.status in tuple(unless_in):
            return 0
        return move_to_lost_found(folder, unrecorded - _recorded(session, dataset_id))


def clear_dataset_folders(
    session: Session, folder: DataFolder, dataset: Dataset, *, uploads_alone: bool = False
) -> None:
    """Move the files in a dataset's folders that no record of the dataset names to `.lost+found`.

    Args:
        session: A transaction that has locked the dataset's row.
        folder: The data folder.
        dataset: The dataset; without a recorded image, its folders are moved as a whole.
        uploads_alone: Check only files with the names of uploads: an upload to a free position would overwrite them.
    """
    own = select(Image.path).where(Image.dataset_id == dataset.id)
    if session.scalar(own.limit(1)) is None:
        log_moved(sum(move_tree_to_lost_found(folder, tree) for tree in folder.trees(dataset.name)))
        return
    paths = folder.uploads(dataset.name) if uploads_alone else set(folder.dataset_paths(dataset.name))
    if uploads_alone:
        own = own.where(Image.source == "real")
    log_moved(move_to_lost_found(folder, paths - set(session.scalars(own))))


def finish_deletion(db: Database, folder: DataFolder, dataset_id: str) -> None:
    """Finish the deletion of a dataset: delete its files if its row is gone, else restore them from the trash.

    Only the process that deletes the dataset may call this; for any other, a missing row is no proof of a deletion.
    """
    if not _restore_if_recorded(db, folder, dataset_id):
        folder.purge_dataset(dataset_id)


def unrecorded(db: Database, paths: Iterable[str], column: QueryableAttribute[str]) -> Iterator[str]:
    """Yield the paths that no row has in this column, without those of deletions that are not finished."""
    remaining = iter(paths)
    while batch := list(itertools.islice(remaining, _AT_ONCE)):
        with db.snapshot() as session:
            known = set(session.scalars(select(column).where(column.in_(batch))))
            known |= set(session.scalars(select(RemovedFile.path).where(RemovedFile.path.in_(batch))))
        yield from (path for path in batch if path not in known)


def _forget_old_exports(db: Database, folder: DataFolder) -> None:
    """Delete the exported files of models without a row: they can be made again while the model exists."""
    for model_id in unrecorded(db, exported_models(folder), TrainedModel.id):
        forget_exports(folder, model_id)


def _recover_trashed(db: Database, folder: DataFolder, dataset_id: str) -> None:
    """Restore the trashed files of a dataset that has a row; move those of a dataset without a row to `.lost+found`.

    A dataset without a row was deleted by a process that was killed after its commit, or is newer than this copy of the
    database. The files are in the trash already, so `MAX_SWEPT` does not apply to them.
    """
    if not _restore_if_recorded(db, folder, dataset_id) and folder.is_trashed_since(dataset_id, _OLDER_THAN_S):
        log_moved(move_tree_to_lost_found(folder, folder.trash_path(dataset_id)))


def _restore_if_recorded(db: Database, folder: DataFolder, dataset_id: str) -> bool:
    with db.transaction() as session:
        dataset = session.get(Dataset, dataset_id, with_for_update=True)
        if dataset is not None:
            folder.restore_dataset(dataset.name, dataset_id)
    return dataset is not None


def _unrecorded_files(db: Database, folder: DataFolder) -> Iterator[_Unrecorded]:
    idle = folder.idle_datasets()  # read first, because a dataset's row is created before its folder
    with db.snapshot() as session:
        datasets = session.execute(select(Dataset.id, Dataset.name, Dataset.status)).all()
        at_work = set(session.scalars(select(Job.kind).where(Job.status.in_(ACTIVE_JOB_STATUSES)).distinct()))
    for dataset_id, name, status in datasets:
        if status not in ACTIVE_DATASET_STATUSES:
            for path in unrecorded(db, folder.dataset_paths(name), Image.path):
                yield _Unrecorded(path, dataset_id=dataset_id)
    for tree in _unrecorded_trees(folder, idle - {name for _, name, _ in datasets}):
        yield from (_Unrecorded(path, tree=tree) for path in paths_below(folder.root, tree))
    if "generate" not in at_work:  # a job records its files at its end, and may be paused for days before
        images = unrecorded(db, _old(folder, "images"), Image.path)
        # A prune may have removed some between the two looks, with their records.
        yield from (_Unrecorded(path) for path in images if (folder.root / path).exists())
    if "train" not in at_work:
        yield from map(_Unrecorded, unrecorded(db, _old(folder, "models"), TrainedModel.path))
        yield from map(_Unrecorded, _old(folder, FINE_TUNING))  # of jobs that have ended, or that another database has


def _move(db: Database, folder: DataFolder, files: list[_Unrecorded]) -> int:
    """Move these files to `.lost+found`, each after its records have been read a second time."""
    by_dataset: defaultdict[str, set[str]] = defaultdict(set)
    for file in files:
        if file.dataset_id is not None:
            by_dataset[file.dataset_id].add(file.path)
    num_moved = sum(
        move_unrecorded(db, folder, dataset_id, unless_in=ACTIVE_DATASET_STATUSES, among=paths)
        for dataset_id, paths in by_dataset.items()
    )
    trees = sorted({file.tree for file in files if file.tree is not None})
    with db.snapshot() as session:
        named = set(session.scalars(select(Dataset.name).where(Dataset.name.in_([_name_of(tree) for tree in trees]))))
    num_moved += sum(move_tree_to_lost_found(folder, tree) for tree in trees if _name_of(tree) not in named)
    paths = [file.path for file in files if file.dataset_id is None and file.tree is None]
    for column in (Image.path, TrainedModel.path):
        paths = list(unrecorded(db, paths, column))
    return num_moved + move_to_lost_found(folder, paths)


def _recorded(session: Session, dataset_id: str) -> Set[str]:
    return set(session.scalars(select(Image.path).where(Image.dataset_id == dataset_id)))


def _unrecorded_trees(folder: DataFolder, names: Set[str]) -> list[str]:
    return [tree for name in sorted(names) for tree in folder.trees(name)]


def _name_of(tree: str) -> str:
    return tree.rpartition("/")[2]


def _old(folder: DataFolder, kind: str) -> Iterator[str]:
    return paths_below(folder.root, kind, older_than_s=_OLDER_THAN_S)


def log_moved(num_moved: int) -> None:
    """Log how many files were moved to `.lost+found`; nothing for 0."""
    if num_moved:
        logger.warning("Moved %d files that no record names to .lost+found in the data folder.", num_moved)

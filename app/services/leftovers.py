"""Files and records put right after processes that died between the two: no file without a record, nor the reverse.

Knows no single kind of work. `sweep` runs in the API process before it serves, `remove_deleted` in the worker before
it works; what a job left undone is removed by its worker, see `DatasetImages.tidy`. Other nodes may be at work in the
same folder and database meanwhile.
"""

import logging
from collections.abc import Iterable, Set

from sqlalchemy import select
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import QueryableAttribute

from app.db.models import ACTIVE_JOB_STATUSES, Dataset, Image, Job, TrainedModel
from app.db.session import Database
from app.services.datasets import ACTIVE, settle_deletion
from app.storage.layout import DataFolder

logger = logging.getLogger(__name__)

# A file of a generation that is written and not yet recorded is younger; so is one of a node that is at work.
_OLDER_THAN_S = 3_600.0
# Paths looked up together; SQLite takes no more than 32,766 values in a statement.
_AT_ONCE = 500


def sweep(db: Database, folder: DataFolder) -> None:
    """Put right what is right no more; a look at each file and each image's path, seconds for a million."""
    for dataset_id in folder.taken_datasets():
        settle_deletion(db, folder, dataset_id)
    with db.snapshot() as session:
        resting = session.scalars(select(Dataset.id).where(Dataset.status.not_in(ACTIVE))).all()
        at_work = set(session.scalars(select(Job.kind).where(Job.status.in_(ACTIVE_JOB_STATUSES)).distinct()))
    num_removed = sum(remove_unrecorded(db, folder, dataset_id, unless_in=ACTIVE) for dataset_id in resting)
    if "generate" not in at_work:  # a job records its files at its end, and may rest for days before
        num_removed += _remove_strangers(db, folder, folder.image_paths(older_than_s=_OLDER_THAN_S), Image.path)
    if "train" not in at_work:
        num_removed += _remove_strangers(db, folder, folder.model_paths(older_than_s=_OLDER_THAN_S), TrainedModel.path)
    if num_removed:
        logger.warning(
            "Removed %d files that no record named; a process died before it had recorded them.", num_removed
        )


def remove_deleted(db: Database, folder: DataFolder) -> None:
    """Remove folders of deleted datasets: a process that died over a deletion, or woke up after it, left them."""
    idle = folder.idle_datasets()  # first, since a dataset's row is there before its folder
    with db.snapshot() as session:
        idle -= set(session.scalars(select(Dataset.name)))
    for name in idle:
        folder.clear_dataset(name)


def remove_unrecorded(db: Database, folder: DataFolder, dataset_id: str, *, unless_in: Iterable[str] = ()) -> int:
    """Remove the files of a dataset, kept and rejected ones, that no row names.

    Args:
        db: Where the rows are.
        folder: Where the files are.
        dataset_id: Whose files; one that is gone has none.
        unless_in: Statuses of the dataset in which it is left alone.

    Returns:
        How many files were removed.
    """
    with db.snapshot() as session:
        dataset = session.get(Dataset, dataset_id)
        if dataset is None:
            return 0
        unrecorded = set(folder.dataset_paths(dataset.name)) - _recorded(session, dataset_id)
    if not unrecorded:
        return 0
    with db.transaction() as session:  # looks again, holding the row: nobody uploads or begins a job meanwhile
        dataset = session.get(Dataset, dataset_id, with_for_update=True, populate_existing=True)
        if dataset is None or dataset.status in tuple(unless_in):
            return 0
        unrecorded -= _recorded(session, dataset_id)
        for path in unrecorded:
            folder.delete(path)
    return len(unrecorded)


def _recorded(session: Session, dataset_id: str) -> Set[str]:
    return set(session.scalars(select(Image.path).where(Image.dataset_id == dataset_id)))


def _remove_strangers(db: Database, folder: DataFolder, paths: Iterable[str], column: QueryableAttribute[str]) -> int:
    """Remove those of the files that no row names in this column."""
    found, num_removed = list(paths), 0
    for start in range(0, len(found), _AT_ONCE):
        some = set(found[start : start + _AT_ONCE])
        with db.snapshot() as session:
            some -= set(session.scalars(select(column).where(column.in_(some))))
        for path in some:
            folder.delete(path)
        num_removed += len(some)
    return num_removed

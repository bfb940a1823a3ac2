"""Deletion of generations with their files, such that a killed process leaves nothing that the next one cannot finish.

Rows and files cannot be deleted together. The transaction that deletes the rows also writes the paths of their files to
the table `removed_files`; the files are removed after its commit, and the paths after the files. A process that is
killed in between leaves paths, and the next start of a node or the next prune removes their files. Imports no job and
no engine. Any thread and any process may call it, several at once.
"""

import logging
from collections.abc import Sequence

from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from app.db.models import Generation, Image, RemovedFile
from app.db.session import Database
from app.errors import DatabaseFull, DatabaseUnavailable
from app.storage.layout import DataFolder

logger = logging.getLogger(__name__)

# Files that are removed between two transactions.
_PAGE = 500


def forget_generations(session: Session, generation_ids: Sequence[str]) -> list[str]:
    """Delete the records of generations and their images, and return the paths of the files to remove.

    Args:
        session: A transaction; call `remove_files` after its commit.
        generation_ids: At most some hundreds; those that do not exist have no files.
    """
    # With the rows locked, no other transaction returns the same files.
    locked = select(Generation.id).where(Generation.id.in_(generation_ids)).order_by(Generation.id).with_for_update()
    ids = session.scalars(locked).all()
    paths = list(session.scalars(select(Image.path).where(Image.generation_id.in_(ids))))
    session.execute(delete(Generation).where(Generation.id.in_(ids)))  # the database deletes their images with them
    if paths:
        session.execute(insert(RemovedFile), [{"path": path} for path in paths])
    return paths


def remove_files(db: Database, folder: DataFolder, paths: Sequence[str]) -> None:
    """Remove files whose records are deleted, then their paths from `removed_files`.

    If the database fails meanwhile, the paths stay there, and `finish_removals` deletes them later.

    Raises:
        Unavailable: The storage cannot be written.
    """
    for path in paths:
        folder.delete(path)

    def forget() -> None:
        with db.transaction() as session:
            session.execute(delete(RemovedFile).where(RemovedFile.path.in_(paths)))

    try:
        folder.reserve.spend(forget)
    except (DatabaseUnavailable, DatabaseFull):
        logger.warning("The database is unavailable. The next start notes that %d files are removed.", len(paths))


def finish_removals(db: Database, folder: DataFolder) -> int:
    """Remove the files of deletions that a killed process has left unfinished, and return how many paths there were.

    Beside a deletion that is running, both remove the same files; a missing file is no error.

    Raises:
        Unavailable: The storage cannot be written, or the database cannot be reached.
    """
    num_finished, after = 0, ""
    while True:
        # A path with a record is left alone: no deletion leaves one, but a copy of the database may contain it.
        has_record = select(Image.id).where(Image.path == RemovedFile.path).exists()
        page = select(RemovedFile.path).where(RemovedFile.path > after, ~has_record).order_by(RemovedFile.path)
        with db.snapshot() as session:
            paths = session.scalars(page.limit(_PAGE)).all()
        if not paths:
            return num_finished
        remove_files(db, folder, paths)
        num_finished += len(paths)
        after = paths[-1]


def num_unfinished(session: Session) -> int:
    """Return how many files deletions have still to remove."""
    return session.scalar(select(func.count()).select_from(RemovedFile)) or 0

"""The check that a database and a data folder belong together: both carry the same store id.

Every start runs it before any file is changed; otherwise a node would serve a database without records of the folder's
files, or records whose files lie in another folder. `foxhound migrate` gives both an id; a store from a release without
ids gets one if the files of its records exist. Imports no service and no engine. Runs on the main thread at start;
several processes may run it at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Select, inspect, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.db.base import new_id, utc_now
from app.db.models import Image, Store, TrainedModel
from app.db.session import Database, database_url, sqlite_path
from app.storage.files import storage_errors
from app.storage.inventory import files_below
from app.storage.layout import DataFolder
from app.storage.store_id import StoreIdUnreadable, give_store_id, read_store_id, replace_store_id

# Files of each kind, newest first, whose existence is checked if an id is missing.
_SAMPLE = 64
# Folders with files that cannot be generated again, or not with the same bytes.
_PRECIOUS = ("images", "datasets", "rejected", "models", ".taken")

_CORRECT = "Correct the one of these two settings that is wrong; nothing was changed."
_ADOPT = "If they do belong together, run: foxhound storage adopt"
_MOVE = "To move the records to another database, run: foxhound migrate --from URL --to URL"


class StoreMismatch(Exception):
    """The database and the data folder do not belong together; nothing was changed."""


@dataclass(frozen=True, slots=True)
class _Records:
    """The store id of a database, and the newest paths of each kind of file that it has records of."""

    store_id: str | None
    samples: Sequence[Sequence[str]]


def check_store(url: str, folder: DataFolder) -> None:
    """Raise unless this database may be used with this folder; writes nothing, and accepts an older schema.

    Raises:
        StoreMismatch: They do not belong together, or the folder's id cannot be read.
    """
    own = _folder_id(folder)
    path = sqlite_path(url)
    if path is not None and not path.exists():  # connecting would create it
        _check_match(_Records(None, ()), own, folder, url)
        return
    db = Database(url, pool_size=1)
    try:
        with db.snapshot() as session:
            records = _read(session)
    finally:
        db.close()
    _check_match(records, own, folder, url)


def assign_store_id(db: Database, folder: DataFolder) -> str:
    """Give database and folder the same id where one has none yet; return it. The schema must be the newest.

    Raises:
        StoreMismatch: They do not belong together, or the folder's id cannot be read or written.
    """
    url = str(db.engine.url)
    # The folder before the database, in the reverse order of writing: another process may be assigning the id now.
    own = _folder_id(folder)
    with db.snapshot() as session:
        records = _read(session)
    _check_match(records, own, folder, url)
    if records.store_id is not None and own is not None:
        return own
    store_id = records.store_id or _give_database_id(db, own or new_id())  # first the database, then the folder
    if own is None:
        try:
            with storage_errors():
                own = give_store_id(folder.root, store_id)
        except StoreIdUnreadable as error:
            raise StoreMismatch(_unreadable(error)) from None
        except Exception as error:
            raise StoreMismatch(f"{_folder(folder)} cannot be written: its file store_id is missing.") from error
    if own != store_id:
        raise StoreMismatch(_differ(folder, url))
    return store_id


def adopt_store(db: Database, folder: DataFolder) -> str:
    """Declare that database and folder belong together: the folder's id is replaced by the database's."""
    store_id = _give_database_id(db, new_id())
    replace_store_id(folder.root, store_id)
    return store_id


def _folder_id(folder: DataFolder) -> str | None:
    """Return the folder's id, None if it has none.

    Raises:
        StoreMismatch: The id cannot be read.
    """
    try:
        return read_store_id(folder.root)
    except StoreIdUnreadable as error:
        raise StoreMismatch(_unreadable(error)) from None


def _check_match(records: _Records, own: str | None, folder: DataFolder, url: str) -> None:
    """Raise StoreMismatch unless a database and a folder, whose id is `own`, belong together."""
    if own is not None and records.store_id is not None:
        if own != records.store_id:
            raise StoreMismatch(_differ(folder, url))
        return
    is_full = any(True for kind in _PRECIOUS for _ in files_below(folder.root / kind))
    if not records.samples:
        if own is not None or is_full:
            belongs = "belongs to another database than" if own is not None else "holds files unknown to"
            raise StoreMismatch(f"{_folder(folder)} {belongs} {_database(url)}. {_CORRECT} {_MOVE} {_ADOPT}")
    elif not all(_has_some(folder.root, paths) for paths in records.samples):
        what = "holds other files than those" if is_full else "is empty, or not mounted, and lacks the files"
        raise StoreMismatch(f"{_folder(folder)} {what} that {_database(url)} has records of. {_CORRECT} {_ADOPT}")


def _read(session: Session) -> _Records:
    inspector = inspect(session.connection())
    store_id = session.scalar(select(Store.id)) if inspector.has_table(Store.__tablename__) else None
    if not inspector.has_table(Image.__tablename__):
        return _Records(store_id, ())
    newest: tuple[Select[str], ...] = (
        select(Image.path).where(Image.dataset_id.is_(None)).order_by(Image.id.desc()),
        select(Image.path).where(Image.dataset_id.is_not(None)).order_by(Image.id.desc()),
        select(TrainedModel.path).order_by(TrainedModel.id.desc()),
    )
    samples = [session.scalars(query.limit(_SAMPLE)).all() for query in newest]
    return _Records(store_id, [paths for paths in samples if paths])


def _has_some(root: Path, paths: Sequence[str]) -> bool:
    return any((root / path).is_file() for path in paths)


def _give_database_id(db: Database, store_id: str) -> str:
    """Give the database this id unless it has one; return its id."""
    insert = postgresql.insert if db.engine.dialect.name == "postgresql" else sqlite.insert
    with db.transaction() as session:
        row = {"row": 1, "id": store_id, "created_at": utc_now()}
        session.execute(insert(Store).values(row).on_conflict_do_nothing())
    with db.snapshot() as session:
        return session.scalars(select(Store.id)).one()


def _differ(folder: DataFolder, url: str) -> str:
    return f"{_folder(folder)} belongs to another database than {_database(url)}: their ids differ. {_CORRECT} {_ADOPT}"


def _unreadable(error: StoreIdUnreadable) -> str:
    return f"{error} Restore it from a backup. If the folder is this database's, run: foxhound storage adopt"


def _folder(folder: DataFolder) -> str:
    return f"The data folder {folder.root} (FOXHOUND_DATA_DIR)"


def _database(url: str) -> str:
    return f"the database {database_url(url).render_as_string(hide_password=True)} (FOXHOUND_DATABASE_URL)"

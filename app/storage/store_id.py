"""The file `store_id` of a data folder, which identifies the store that its files belong to.

The database contains the same id; `app/services/store/identity.py` compares the two. Imports no database.
Any thread and any process may call it.
"""

import re
import uuid
from pathlib import Path

from app.storage.files import TEMPORARIES, make_folder, place_new, sync_folder, write_atomic

STORE_ID = "store_id"

_FORM = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MAX_BYTES = 64


class StoreIdUnreadable(Exception):
    """The file `store_id` exists but contains no id, or cannot be read."""


def read_store_id(root: Path) -> str | None:
    """Return the id of a data folder; None if it has none or does not exist.

    Raises:
        StoreIdUnreadable: The file is damaged or cannot be read.
    """
    path = root / STORE_ID
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES).decode("ascii", "replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreIdUnreadable(f"The file {path} cannot be read.") from error
    if not _FORM.fullmatch(text):
        raise StoreIdUnreadable(f"The file {path} is damaged: it contains no id.")
    return text


def give_store_id(root: Path, store_id: str) -> str:
    """Give a data folder an id unless another process has done so; return its id.

    Raises:
        StoreIdUnreadable: The file of another process is damaged.
        OSError: The folder cannot be written.
    """
    make_folder(root)
    unfinished = root / TEMPORARIES / f"{uuid.uuid4().hex}.{STORE_ID}"
    write_atomic(unfinished, f"{store_id}\n".encode(), temporaries=unfinished.parent)
    try:
        place_new(unfinished, root / STORE_ID)
        sync_folder(root)
    finally:
        unfinished.unlink()
    return read_store_id(root) or store_id


def replace_store_id(root: Path, store_id: str) -> None:
    """Replace the id of a data folder; only `foxhound storage adopt` does so."""
    write_atomic(root / STORE_ID, f"{store_id}\n".encode(), temporaries=root / TEMPORARIES)

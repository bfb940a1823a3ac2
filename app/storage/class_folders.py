"""Folder names for the classes of a dataset: ASCII slugs, unique on every filesystem.

Imports nothing of the data folder and does no I/O. Pure functions; any thread may call them.
"""

import hashlib
import itertools
import re
import unicodedata
from collections.abc import Sequence, Set

from app.names import equal_names

_MAX_SLUG_CHARS = 48
# Device names on Windows, with any extension.
_RESERVED = {"con", "prn", "aux", "nul"} | {f"{port}{digit}" for port in ("com", "lpt") for digit in range(10)}


def class_folders(names: Sequence[str]) -> list[str]:
    """Return a folder name for each class name; every filesystem keeps them apart.

    A class name may be any text. A folder name depends on its class name and on those before it, so that adding a class
    at the end changes no existing folder.

    Args:
        names: Class names in the dataset's order.

    Returns:
        One folder name for each class: `[a-z0-9][a-z0-9._-]*`, at most 64 characters, unique regardless of case.

    Raises:
        ValueError: Two class names are equal by the rule of `app.names`.
    """
    if equal_names(names):
        raise ValueError("two class names are equal")
    taken: dict[str, None] = {}  # in the order of the names
    for name in names:
        # Not `name_key`, which removes more: folder names must be the same in every release.
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        taken[_free_folder(folded, taken=taken.keys())] = None
    return list(taken)


def _free_folder(key: str, *, taken: Set[str]) -> str:
    slug = _slug(key)
    if slug and slug not in taken:
        return slug
    candidates = (f"{slug or 'class'}-{_short_hash(key, attempt)}" for attempt in itertools.count())
    return next(candidate for candidate in candidates if candidate not in taken)


def _short_hash(key: str, attempt: int) -> str:
    return hashlib.sha256(f"{attempt}:{key}".encode("utf-8", "surrogatepass")).hexdigest()[:8]


def _slug(key: str) -> str:
    """Reduce text to `[a-z0-9._-]`; the result may be empty."""
    ascii_text = unicodedata.normalize("NFKD", key).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9._-]+", "-", ascii_text).strip("._-")[:_MAX_SLUG_CHARS].rstrip("._-")
    return f"class-{slug}" if slug.split(".")[0] in _RESERVED else slug

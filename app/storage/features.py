"""A cache on disk for the features that a frozen backbone computes from an image.

Imports neither the backbone nor the database models. A missing, damaged or foreign file is a cache miss. Any number of
threads and processes may share one folder.
"""

import hashlib
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from app.storage.eviction import BoundedFolder
from app.storage.files import TEMPORARIES, write_atomic
from app.storage.reserve import NO_RESERVE, Reserve

_KEY = re.compile(r"[0-9a-f]{64}")
_DIGEST_BYTES = 32


# Views of an image: as the backbone's preprocessing gives it, mirrored, seeded random parts `crop-0`, `crop-1`, ...,
# and as other hands might have drawn it, `hand-0`, `hand-1`, ...
PLAIN: Final = "plain"
FLIP: Final = "flip"
_CROP = re.compile(r"crop-(0|[1-9]\d{0,3})")
_HAND = re.compile(r"hand-(\d)")


def view_names(*, flip: bool = False, num_crops: int = 0, num_hands: int = 0) -> list[str]:
    """Return the names of the views of each image: the plain one, its mirror image, random parts, and other hands'."""
    parts = [f"crop-{number}" for number in range(num_crops)]
    return [PLAIN, *([FLIP] if flip else []), *parts, *(f"hand-{number}" for number in range(num_hands))]


def hand_number(view: str) -> int | None:
    """Return the number of a view by another hand, by which its draws are seeded; None for another view."""
    match = _HAND.fullmatch(view)
    return None if match is None else int(match[1])


def crop_number(view: str) -> int | None:
    """Return the number of a random part, by which its draws are seeded; None for another view."""
    match = _CROP.fullmatch(view)
    return None if match is None else int(match[1])


def feature_key(image_sha256: str, backbone_revision: str, preprocessing: str) -> str:
    """Return the key of an image's features under one backbone and preprocessing: 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in (image_sha256, backbone_revision, preprocessing):
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.hexdigest()


def view_key(image_sha256: str, backbone: dict[str, Any], view: str) -> str:
    """Return the key of an image's features in one view.

    Args:
        image_sha256: Of the image's file.
        backbone: Everything else that the features depend on: the JSON form of `BackboneFacts`.
        view: A name of `view_names`.
    """
    # The backbone's name is left out: the same weights under two names give the same features.
    facts = {name: value for name, value in backbone.items() if name != "name"}
    settings = json.dumps([facts, view], sort_keys=True, separators=(",", ":"))
    return feature_key(image_sha256, str(backbone["weights_sha256"]), settings)


class FeatureCache:
    """float32 arrays in `{root}/{ab}/{key}.npy`, bounded in bytes; the oldest files are evicted first.

    A file ends with the SHA-256 of its content: files are written without waiting for the disk, which took 4 of 5 ms,
    and a power failure may leave anything.
    """

    def __init__(self, root: Path, max_bytes: int = 2_000_000_000, reserve: Reserve = NO_RESERVE) -> None:
        """Open the cache.

        Args:
            root: The cache's folder; the first `put` creates it.
            max_bytes: Largest total size of the files; a `put` beyond it evicts files down to 90 % of it.
            reserve: Disk space that `put` must leave free.
        """
        self._root = root
        self._reserve = reserve
        self._bound = BoundedFolder(root, max_bytes)

    def get(self, key: str) -> npt.NDArray[np.float32] | None:
        """Return an array; None if its file is missing or unreadable."""
        path = self._path(key)
        try:
            content = path.read_bytes()
            data = content[:-_DIGEST_BYTES]
            if hashlib.sha256(data).digest() != content[-_DIGEST_BYTES:]:
                return None
            array = np.load(io.BytesIO(data), allow_pickle=False)
        except (OSError, ValueError, EOFError, MemoryError):
            return None
        return array if isinstance(array, np.ndarray) and array.dtype == np.float32 else None

    def has(self, key: str) -> bool:
        """Return whether there is a file for the key, without reading it."""
        return self._path(key).is_file()

    def get_many(self, keys: Sequence[str]) -> list[npt.NDArray[np.float32] | None]:
        """Return the arrays of several keys, as `get` does."""
        return [self.get(key) for key in keys]

    def put(self, key: str, array: npt.NDArray[np.float32]) -> None:
        """Store an array under a key of `feature_key`.

        Raises:
            StorageFull: There is no room beyond the reserve.
        """
        self._reserve.check()
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(array, dtype=np.float32), allow_pickle=False)
        data = buffer.getvalue()
        data += hashlib.sha256(data).digest()
        write_atomic(self._path(key), data, temporaries=self._root / TEMPORARIES, is_durable=False)
        self._bound.add(len(data))

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError("not a feature key")
        return self._root / key[:2] / f"{key}.npy"

"""A cache on disk for small copies of stored images, and their making.

    thumbnails/{path of the image}/{width}.webp

Each file ends with a hash over the image's hash and the small copy, so that a damaged file, or one of an older image at
the same path, is a cache miss. `DataFolder` deletes the small copies together with their image. Imports no database
models. Any thread and any process may use it; making one takes a core for milliseconds, and is never done on the event
loop.
"""

import hashlib
import io
from contextlib import suppress
from pathlib import Path

from PIL import Image

from app.errors import StorageFull, Unavailable
from app.storage.eviction import BoundedFolder, size_in_blocks
from app.storage.files import TEMPORARIES, contained_path, write_atomic
from app.storage.image_formats import decode_image
from app.storage.reserve import NO_RESERVE, Reserve

MEDIA_TYPE = "image/webp"
# A picture that is 100 times as high as wide would have a small copy of megabytes.
MAX_PROPORTION = 4
_DIGEST_BYTES = 32
_QUALITY = 82


def small_size(width: int, height: int, max_width: int) -> tuple[int, int]:
    """Return width and height of the small copy of an image, in pixels; never larger than the image.

    Args:
        width: Of the image, >= 1.
        height: Of the image, >= 1.
        max_width: Greatest width of the copy, >= 1; its height is at most four times that.
    """
    scale = min(1.0, max_width / width, MAX_PROPORTION * max_width / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def make_thumbnail(data: bytes, max_width: int) -> bytes:
    """Return the small copy of a stored image, a WebP file.

    Args:
        data: The image's file, which this service has written itself.
        max_width: As in `small_size`.
    """
    image = decode_image(data, max_bytes=len(data), max_pixels=1 << 31)
    size = small_size(image.width, image.height, max_width)
    small = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = io.BytesIO()
    small.save(buffer, "webp", quality=_QUALITY, method=2)
    return buffer.getvalue()


class ThumbnailCache:
    """Small copies by the path of their image and their width, bounded in bytes; the oldest are evicted first."""

    def __init__(self, root: Path, max_bytes: int = 500_000_000, reserve: Reserve = NO_RESERVE) -> None:
        """Open the cache.

        Args:
            root: The cache's folder; the first `put` creates it.
            max_bytes: Largest total size of the files on the disk; a `put` beyond it evicts down to 90 % of it.
            reserve: Disk space that `put` must leave free.
        """
        self._root = root
        self._reserve = reserve
        self._bound = BoundedFolder(root, max_bytes, count=size_in_blocks)

    def get(self, path: str, sha256: str, width: int) -> bytes | None:
        """Return a small copy; None if there is none.

        Args:
            path: Of the image, relative to the data folder.
            sha256: Of the image's file, in hex.
            width: Of the copy, as it was put.
        """
        try:
            content = self._file(path, width).read_bytes()
        except (OSError, ValueError):
            return None
        data = content[:-_DIGEST_BYTES]
        return data if content[-_DIGEST_BYTES:] == _digest(sha256, data) else None

    def put(self, path: str, sha256: str, width: int, data: bytes) -> None:
        """Keep a small copy; a full or failing disk is no error."""
        file = self._file(path, width)
        with suppress(StorageFull, Unavailable, OSError):
            self._reserve.check()
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(file, data + _digest(sha256, data), temporaries=self._root / TEMPORARIES, is_durable=False)
            self._bound.add(len(data) + _DIGEST_BYTES)

    def _file(self, path: str, width: int) -> Path:
        return contained_path(self._root, path) / f"{int(width)}.webp"


def _digest(sha256: str, data: bytes) -> bytes:
    return hashlib.sha256(sha256.encode() + data).digest()

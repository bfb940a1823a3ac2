"""Small copies of stored images, made when they are first asked for.

`find` runs on a pool thread of the API process and reads a row and a small file; `make` reads and decodes the image, on
a thread of the pool `thumbnails`.
"""

from dataclasses import dataclass

from sqlalchemy import select

from app.db.models import Image
from app.db.session import Database
from app.errors import NotFound
from app.services.images.lost_files import IMAGE_CODES, LostImage, refusal
from app.storage.layout import DataFolder
from app.storage.soundness import FileChecks, LostFile
from app.storage.thumbnails import MEDIA_TYPE, ThumbnailCache, make_thumbnail

__all__ = ["MAX_WIDTH", "MEDIA_TYPE", "MIN_WIDTH", "Thumbnail", "ThumbnailService"]

# Greatest widths that may be asked for, in pixels.
MIN_WIDTH, MAX_WIDTH = 16, 512


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small copy, made or to be made.

    Attributes:
        image_id: Of the image.
        dataset_id: Of the image's dataset.
        path: Of the image's file, relative to the data folder.
        num_bytes: Of the image's file.
        sha256: Of the image's file, in hex.
        width: Of the copy, in pixels, at most the image's.
        data: The copy, a WebP file; None: it must be made.
    """

    image_id: str
    dataset_id: str | None
    path: str
    num_bytes: int
    sha256: str
    width: int
    data: bytes | None

    @property
    def tag(self) -> str:
        """The entity tag's text: small copies of one image by width."""
        return f"{self.sha256}-{self.width}"


class ThumbnailService:
    """Finds and makes small copies."""

    def __init__(self, db: Database, folder: DataFolder, checks: FileChecks) -> None:
        """Wire the service; `checks` verifies the files that copies are made from."""
        self._db = db
        self._folder = folder
        self._checks = checks
        self._cache = ThumbnailCache(folder.thumbnails, reserve=folder.reserve)

    def find(self, image_id: str, width: int) -> Thumbnail:
        """Return the small copy of an image, without data if it must be made.

        Args:
            image_id: Of the image.
            width: Greatest width of the copy, in pixels; an image that is smaller is not enlarged.

        Raises:
            NotFound: There is no such image.
        """
        columns = (Image.dataset_id, Image.path, Image.num_bytes, Image.sha256, Image.width)
        with self._db.snapshot() as session:
            row = session.execute(select(*columns).where(Image.id == image_id)).one_or_none()
        if row is None:
            raise _no_image()
        width = min(width, row.width)
        data = self._cache.get(row.path, row.sha256, width)
        return Thumbnail(image_id, row.dataset_id, row.path, row.num_bytes, row.sha256, width, data)

    def make(self, thumbnail: Thumbnail) -> bytes:
        """Return a small copy, made from the image's file and kept for the next request.

        Raises:
            NotFound: The image was deleted meanwhile.
            FileLost: Its file is missing or damaged.
        """
        path, sha256 = thumbnail.path, thumbnail.sha256
        if (made := self._cache.get(path, sha256, thumbnail.width)) is not None:
            return made  # by a request that asked at the same time
        try:
            file = self._checks.read(path, num_bytes=thumbnail.num_bytes, sha256=sha256)
        except LostFile as error:
            self._require(thumbnail.image_id)
            lost = LostImage(thumbnail.image_id, path, IMAGE_CODES[error.fault])
            raise refusal(lost, thumbnail.dataset_id) from None
        data = make_thumbnail(file, thumbnail.width)
        self._cache.put(path, sha256, thumbnail.width, data)
        try:
            self._require(thumbnail.image_id)
        except NotFound:  # deleted before the copy was there to be deleted with it
            self._folder.remove_thumbnails(path)
            raise
        return data

    def _require(self, image_id: str) -> None:
        with self._db.snapshot() as session:
            if session.scalar(select(Image.id).where(Image.id == image_id)) is None:
                raise _no_image()


def _no_image() -> NotFound:
    return NotFound("There is no image with this id.")

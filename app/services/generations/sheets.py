"""One sheet of all images of a generation, drawn when it is asked for: images never change, so neither does it.

Imports no engine. Runs in the API process, on pool threads.
"""

import io
from collections.abc import Sequence
from functools import partial

import PIL.Image
from sqlalchemy import select

from app.db.models import Image
from app.db.session import Database
from app.errors import NotFound
from app.services.images.lost_files import IMAGE_CODES, LostImage, refusal
from app.storage.sheets import make_sheet
from app.storage.soundness import FileChecks, LostFile


class GenerationSheets:
    """Draws sheets of stored images."""

    def __init__(self, db: Database, checks: FileChecks) -> None:
        """Wire the service; `checks` compares files with their records."""
        self._db = db
        self._checks = checks

    def read(self, generation_id: str) -> bytes:
        """Return the sheet of a generation, a PNG.

        Raises:
            NotFound: There is no generation with this id, or it has no images.
            FileLost: The file of an image is gone or damaged.
        """
        with self._db.snapshot() as session:
            query = select(Image).where(Image.generation_id == generation_id).order_by(Image.position)
            images = list(session.scalars(query))
        if not images:
            raise NotFound("There is no generation with images under this id.")
        load = [partial(self._load, image) for image in images]
        return make_sheet(load, images[0].width, images[0].height)

    def _load(self, image: Image) -> PIL.Image.Image:
        try:
            return _opened(self._checks.read(image.path, num_bytes=image.num_bytes, sha256=image.sha256))
        except LostFile as error:
            raise refusal(LostImage(image.id, image.path, IMAGE_CODES[error.fault]), None) from None


def sheet_of(files: Sequence[bytes], width: int, height: int) -> bytes:
    """Return the sheet of image files in memory, which this service made."""
    return make_sheet([partial(_opened, file) for file in files], width, height)


def _opened(file: bytes) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(file)).convert("RGB")

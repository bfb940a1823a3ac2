"""Small copies of the images that a report shows, inside the report.

Imports no HTTP framework. Runs on a pool thread; decoding is bounded by a number of pixels, about a second of work.
"""

import base64
import io
from collections.abc import Sequence

from PIL import Image as Pillow
from sqlalchemy import select

from app.db.models import Image
from app.db.session import Database
from app.errors import AppError
from app.schemas.train_reports import MAX_THUMBNAIL, ReportMistake, TrainReportRead
from app.services.limits import Limits
from app.storage.image_formats import DecodeImage
from app.storage.soundness import FileChecks, LostFile

MAX_THUMBNAILS = 24
SIDE = 96
# Of all images that are decoded for one report; those beyond are linked only.
MAX_PIXELS = 60_000_000


class Thumbnails:
    """Reads stored images and reduces them."""

    def __init__(self, db: Database, checks: FileChecks, limits: Limits, decode: DecodeImage) -> None:
        """Use these services."""
        self._db = db
        self._checks = checks
        self._limits = limits
        self._decode = decode

    def add(self, report: TrainReportRead) -> TrainReportRead:
        """Return the report with thumbnails of its first mistakes; images that are gone or damaged get none."""
        shown = report.mistakes[:MAX_THUMBNAILS]
        made = self._made([mistake.image_id for mistake in shown])
        mistakes = [
            ReportMistake(**{**mistake.model_dump(), "thumbnail_b64": made.get(mistake.image_id)}) for mistake in shown
        ]
        return report.model_copy(update={"mistakes": [*mistakes, *report.mistakes[MAX_THUMBNAILS:]]})

    def _made(self, ids: Sequence[str]) -> dict[str, str]:
        columns = (Image.id, Image.path, Image.num_bytes, Image.sha256, Image.width, Image.height)
        with self._db.snapshot() as session:
            rows = {row.id: row for row in session.execute(select(*columns).where(Image.id.in_(ids)))}
        made: dict[str, str] = {}
        left = MAX_PIXELS
        for row in (rows[image_id] for image_id in ids if image_id in rows):
            left -= row.width * row.height
            if left < 0:
                break
            try:
                data = self._checks.read(row.path, num_bytes=row.num_bytes, sha256=row.sha256)
                image = self._decode(data, max_bytes=self._limits.upload_bytes, max_pixels=self._limits.upload_pixels)
            except (LostFile, AppError):
                continue
            encoded = _reduced(image)
            if len(encoded) <= MAX_THUMBNAIL:
                made[row.id] = encoded
        return made


def _reduced(image: Pillow.Image) -> str:
    """Return an RGB image of at most `SIDE` x `SIDE` pixels as JPEG, base64."""
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode()

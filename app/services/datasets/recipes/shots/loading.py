"""Reads the shots of a request: checks who sees them and what they are used for, and brings them to the dataset's size.

Imports no engine. Runs on a worker thread of the API process, one request at a time.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from app.access.caller import Caller
from app.access.visibility import seen, seen_images
from app.db.models import Dataset, Image
from app.db.session import Database
from app.error_codes import ErrorCode
from app.errors import FieldError, FileLost, Invalid, NotFound
from app.schemas.datasets import DatasetCreate
from app.services.datasets.recipes.shots.rules import shots_of
from app.services.images.service import ImageService
from app.services.images.sources import decode_source, fit, png_file
from app.services.limits import Limits, raise_if_invalid
from app.storage.image_formats import DecodeImage, decode_image, pixels_sha256

# Training on these, or on variants of them, would make what a model is worth look better than it is.
_HELD_OUT = ("validation", "test")


@dataclass(frozen=True, slots=True)
class Shots:
    """The prepared shots of a request.

    Attributes:
        hashes: The hash of each shot's pixels, resized, by the image's id.
        files: The PNG file of each, by that hash.
    """

    hashes: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)


NOTHING = Shots()


@dataclass(frozen=True, slots=True)
class _Stored:
    """What is recorded of an image that is to be a shot."""

    split: str | None
    sha256: str
    pixels_sha256: str | None


class ShotLoader:
    """Reads and prepares shots."""

    def __init__(
        self, db: Database, images: ImageService, limits: Limits, *, decode: DecodeImage = decode_image
    ) -> None:
        """Wire the service; `decode` reads image files."""
        self._db = db
        self._images = images
        self._limits = limits
        self._decode = decode
        # A picture of 40 megapixels takes 120 MB, so that requests prepare theirs one after the other.
        self._turn = threading.Lock()

    def load(self, request: DatasetCreate, size: tuple[int, int], caller: Caller, *, base: str = "#") -> Shots:
        """Return the shots of a request at the size of its images, (width, height) in pixels.

        Raises:
            Invalid: There is no such image, the caller does not see it, or a dataset validates or tests with it.
            Invalid, UnsupportedImage, PayloadTooLarge, FileLost: Its file cannot be used. The fault names the field.
        """
        named = list(shots_of(request, base))
        if not named:
            return NOTHING
        with self._db.snapshot() as session:
            raise_if_invalid(_faults(session, named, caller))
        shots = Shots()
        with self._turn:
            for pointer, image_id in named:
                self._prepare(shots, pointer, image_id, size, caller)
        return shots

    def _prepare(self, shots: Shots, pointer: str, image_id: str, size: tuple[int, int], caller: Caller) -> None:
        try:
            data = self._images.content(image_id, caller)
        except NotFound:
            raise _not_found(pointer) from None
        except FileLost as error:
            error.errors = (FieldError(pointer, error.detail, error.code),)
            raise
        picture = fit(decode_source(data, pointer, self._limits, self._decode), size)
        sha256 = pixels_sha256(picture)
        shots.hashes[image_id] = sha256
        if sha256 not in shots.files:
            shots.files[sha256] = png_file(np.asarray(picture))


def _faults(session: Session, named: Sequence[tuple[str, str]], caller: Caller) -> list[FieldError]:
    """Return the errors of shots that cannot be seen, or that are held out of training anywhere."""
    query = select(Image.id, Image.split, Image.sha256, Image.pixels_sha256)
    ids = [image_id for _, image_id in named]
    rows = session.execute(query.where(Image.id.in_(ids), seen_images(caller)))
    found = {row.id: _Stored(row.split, row.sha256, row.pixels_sha256) for row in rows}
    hashes = _held_out_hashes(session, list(found.values()), caller)
    faults: list[FieldError] = []
    for pointer, image_id in named:
        stored = found.get(image_id)
        if stored is None:
            faults += _not_found(pointer).errors
        elif stored.split in _HELD_OUT or not hashes.isdisjoint({stored.sha256, stored.pixels_sha256}):
            faults.append(_held_out(pointer))
    return faults


def _held_out_hashes(session: Session, stored: Sequence[_Stored], caller: Caller) -> set[str]:
    """Return which of these files and pixels an image for validation or test has too, of datasets the caller sees."""
    files = {one.sha256 for one in stored}
    pixels = {one.pixels_sha256 for one in stored if one.pixels_sha256 is not None}
    is_equal: ColumnElement[bool] = or_(Image.sha256.in_(files), Image.pixels_sha256.in_(pixels))
    datasets = select(Dataset.id).where(seen(Dataset.key_id, caller))
    query = select(Image.sha256, Image.pixels_sha256).where(Image.split.in_(_HELD_OUT), is_equal)
    rows = session.execute(query.where(Image.dataset_id.in_(datasets)))
    return {value for row in rows for value in row if value is not None}


def _not_found(pointer: str) -> Invalid:
    return Invalid.field(pointer, "There is no image with this id.", ErrorCode.IMAGE_NOT_FOUND)


def _held_out(pointer: str) -> FieldError:
    detail = (
        "The image, or an equal one, is in the split validation or test of a dataset. Models that were trained on "
        "variants of it would look better there than they are. Name an image of a split train."
    )
    return FieldError(pointer, detail, ErrorCode.SHOT_HELD_OUT)

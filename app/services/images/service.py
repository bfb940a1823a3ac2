"""Stored images, of generations and of datasets: list, read, find the file.

Runs on pool threads of the API process.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from app.access.caller import Caller
from app.access.visibility import seen_images
from app.db.models import Dataset, Image
from app.db.session import Database
from app.error_codes import ErrorCode
from app.errors import AppError, Invalid, NotFound
from app.image_spec import OutputFormat
from app.names import find_name
from app.schemas.common import Decision
from app.schemas.images import ImageMetadata, ImagePage, ImageRead
from app.services.images.filters import NO_FILTERS, ImageFilters
from app.services.images.lost_files import IMAGE_CODES, LostImage, lost_image, refusal
from app.services.pagination import fetch_page, search_page
from app.storage.image_formats import MEDIA_TYPES
from app.storage.layout import DataFolder
from app.storage.soundness import FileChecks, LostFile


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file to be sent to a client."""

    path: Path
    media_type: str
    sha256: str
    name: str


class ImageService:
    """Reads stored images."""

    def __init__(self, db: Database, folder: DataFolder, checks: FileChecks) -> None:
        """Wire the service; `folder` is the node's data folder, `checks` compares its files with their records."""
        self._db = db
        self._folder = folder
        self._checks = checks

    def page(
        self,
        limit: int,
        cursor: str | None,
        caller: Caller,
        *,
        dataset_id: str | None,
        class_name: str | None,
        split: str | None,
        decision: Decision = "kept",
        filters: ImageFilters = NO_FILTERS,
    ) -> ImagePage:
        """Return a page of the images that a caller sees, newest first, of one dataset, class or split if given.

        Those that a dataset's filter rejected are listed only with `decision`. A search for words of the prompt or for
        the model reads some thousand images a page, see `search_page`.

        Raises:
            Invalid: A class was given without its dataset, or the dataset has no such class.
        """
        with self._db.snapshot() as session:
            unread = [defer(column, raiseload=True) for column in (Image.lineage, Image.label_probabilities)]
            query = select(Image).where(Image.decision == decision, seen_images(caller)).options(*unread)
            if dataset_id is not None:
                query = query.where(Image.dataset_id == dataset_id)
            if class_name is not None:
                query = query.where(Image.class_index == _class_index(session, dataset_id, class_name, caller))
            if split is not None:
                query = query.where(Image.split == split)
            query = filters.applied(query)
            if (searched := filters.of_lineage) is None:
                rows, next_cursor = fetch_page(session, query, Image.id, limit, cursor)
            else:
                rows, next_cursor = search_page(session, query, searched, Image.id, limit, cursor)
            names = _class_names(session, rows)
            items = [ImageRead(**image_fields(row, names)) for row in rows]
            return ImagePage(items=items, next_cursor=next_cursor)

    def read(self, image_id: str) -> ImageMetadata:
        """Return a stored image's record with its lineage.

        Raises:
            NotFound: There is none with this id.
        """
        with self._db.snapshot() as session:
            row = _image(session, image_id)
            return ImageMetadata(
                **image_fields(row, _class_names(session, [row])),
                label_probabilities=row.label_probabilities,
                reason=row.reason,
                lineage=row.lineage,
            )

    def file(self, image_id: str) -> StoredFile:
        """Return the path of a stored image's file, with what its answer needs.

        Raises:
            NotFound: There is none with this id.
            FileLost: Its file is gone or damaged.
        """
        with self._db.snapshot() as session:
            row = _image(session, image_id)
        if lost := lost_image(self._checks, row):
            raise self._refusal(lost, row)
        return StoredFile(
            self._folder.locate(row.path),
            MEDIA_TYPES[cast(OutputFormat, row.format)],
            row.sha256,
            f"{row.id}.{row.format}",
        )

    def content(self, image_id: str, caller: Caller) -> bytes:
        """Return a stored image's bytes if the caller sees it.

        Raises:
            NotFound, FileLost: As `file`.
        """
        with self._db.snapshot() as session:
            row = session.scalar(select(Image).where(Image.id == image_id, seen_images(caller)))
        if row is None:
            raise _no_image()
        try:
            return self._checks.read(row.path, num_bytes=row.num_bytes, sha256=row.sha256)
        except LostFile as error:
            raise self._refusal(LostImage(row.id, row.path, IMAGE_CODES[error.fault]), row) from None

    def _refusal(self, lost: LostImage, row: Image) -> AppError:
        """Return the error for an image without a sound file: 404 if it was deleted since its record was read."""
        with self._db.snapshot() as session:
            if session.scalar(select(Image.id).where(Image.id == row.id)) is None:
                return _no_image()
        return refusal(lost, row.dataset_id)


def image_fields(row: Image, class_names: dict[str, list[str]]) -> dict[str, Any]:
    """Return the fields of `ImageRead`; `class_names` holds each dataset's classes by their index."""
    columns = (
        "id",
        "created_at",
        "width",
        "height",
        "format",
        "num_bytes",
        "sha256",
        "seed",
        "flagged",
        "split",
        "source",
        "decision",
        "review",
        "clip_score",
    )
    fields = {name: getattr(row, name) for name in (*columns, "generation_id", "dataset_id")}
    in_class = row.dataset_id is not None and row.class_index is not None
    name = class_names[row.dataset_id or ""][row.class_index or 0] if in_class else None
    return {**fields, "url": f"/images/{row.id}", "class_name": name}


def _image(session: Session, image_id: str) -> Image:
    row = session.get(Image, image_id)
    if row is None:
        raise _no_image()
    return row


def _no_image() -> NotFound:
    return NotFound("There is no image with this id.")


def _class_names(session: Session, rows: Sequence[Image]) -> dict[str, list[str]]:
    ids = {row.dataset_id for row in rows if row.dataset_id is not None}
    datasets = session.execute(select(Dataset.id, Dataset.classes).where(Dataset.id.in_(ids)))
    return {row.id: [entry["name"] for entry in row.classes] for row in datasets}


def _class_index(session: Session, dataset_id: str | None, class_name: str, caller: Caller) -> int:
    dataset = session.get(Dataset, dataset_id) if dataset_id is not None else None
    is_seen = dataset is not None and caller.sees(dataset.key_id)
    names = [entry["name"] for entry in dataset.classes] if dataset is not None and is_seen else []
    index = find_name(class_name, names)
    if index is None:
        missing = "The dataset has no class of this name."
        detail = missing if is_seen else "Give the dataset_id that the class belongs to."
        raise Invalid.field("#query/class", detail, ErrorCode.CLASS_NOT_FOUND)
    return index

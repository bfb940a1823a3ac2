"""Real images into a dataset: decoded, stripped, written and recorded, file by file.

Each file is one transaction that holds the dataset's row: its file is written inside, its row is committed after, so
that no row is ever without its file. A process that dies between the two leaves a file without a row; the next start
of a node, or the next upload to the dataset, removes it. Called from threads; decodes at most two images of an API
process at once.
"""

import hashlib
import threading
from collections.abc import Sequence
from typing import Any, BinaryIO

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db.base import new_id
from app.db.models import Dataset, Image
from app.db.session import Database
from app.errors import AppError, Invalid, PayloadTooLarge, UnsupportedImage
from app.schemas.uploads import RefusedFile, UploadedFile, UploadForm, UploadRead
from app.services.dataset_versions import num_images_of
from app.services.datasets import find_dataset, refuse_in_use
from app.services.limits import Limits
from app.storage.images import decode_image, encode_upload, pixels_sha256
from app.storage.layout import DataFolder

# An image of 40 megapixels takes 120 MB of memory, and as much again while it is encoded.
_DECODED_AT_ONCE = 2


class DuplicateImage(Exception):
    """The dataset has this image already."""

    def __init__(self, image_id: str) -> None:
        super().__init__(image_id)
        self.image_id = image_id


class UploadService:
    """Takes files into datasets."""

    def __init__(self, db: Database, folder: DataFolder, limits: Limits) -> None:
        """Wire the service; `folder` is the node's data folder."""
        self._db = db
        self._folder = folder
        self._limits = limits
        self._slots = threading.BoundedSemaphore(_DECODED_AT_ONCE)

    def check_room(self) -> None:
        """Return if files may come: to be asked before a form is read, which may lie on the same disk.

        Raises:
            StorageFull: There is no room.
        """
        self._folder.reserve.check()

    def add(self, dataset_id: str, form: UploadForm, files: Sequence[BinaryIO]) -> UploadRead:
        """Add files to a class and split, each by itself; a file's own fault refuses that file alone.

        Whatever else goes wrong ends the request; what was taken before stays, and is a duplicate when sent again.

        Raises:
            NotFound: There is no such dataset.
            Invalid: The dataset has no such class.
            Conflict: A job makes or reads the dataset.
            StorageFull: There is no room.
        """
        class_index = self._prepare(dataset_id, form)
        results = [self._try(dataset_id, class_index, form.split, index, file) for index, file in enumerate(files)]
        num_accepted = sum(result.refused is None for result in results)
        return UploadRead(num_accepted=num_accepted, num_refused=len(results) - num_accepted, files=results)

    def _prepare(self, dataset_id: str, form: UploadForm) -> int:
        """Check what concerns all files, remove what a dead process left, and return the class's index."""
        with self._db.transaction() as session:
            dataset = find_dataset(session, dataset_id, lock=True)
            refuse_in_use(session, dataset)
            names = [entry["name"] for entry in dataset.classes]
            if form.class_name not in names:
                raise Invalid.field("#/class_name", "the dataset has no class of this name", "class_not_found")
            self._folder.delete_uploads(dataset.name, keep=_recorded(session, dataset_id))
            return names.index(form.class_name)

    def _try(self, dataset_id: str, class_index: int, split: str, index: int, file: BinaryIO) -> UploadedFile:
        try:
            image_id = self._add_one(dataset_id, class_index, split, file)
        except DuplicateImage as error:
            refused = RefusedFile(
                code="duplicate_image", detail="the dataset has this image already", duplicate_of=error.image_id
            )
        except (PayloadTooLarge, UnsupportedImage, Invalid) as error:
            refused = RefusedFile(code=error.code, detail=error.detail, duplicate_of=None)
        else:
            return UploadedFile(index=index, image_id=image_id, refused=None)
        return UploadedFile(index=index, image_id=None, refused=refused)

    def _add_one(self, dataset_id: str, class_index: int, split: str, file: BinaryIO) -> str:
        limits = self._limits
        with self._slots:
            uploaded = file.read(limits.upload_bytes + 1)
            image = decode_image(uploaded, max_bytes=limits.upload_bytes, max_pixels=limits.upload_pixels)
            data, image_format = encode_upload(image, uploaded=uploaded, max_bytes=limits.upload_bytes)
            pixels, (width, height) = pixels_sha256(image), image.size
        columns = {
            "format": image_format,
            "width": width,
            "height": height,
            "num_bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "pixels_sha256": pixels,
            "lineage": {"uploaded_sha256": hashlib.sha256(uploaded).hexdigest(), "uploaded_bytes": len(uploaded)},
        }
        return self._store(dataset_id, class_index, split, data, columns)

    def _store(self, dataset_id: str, class_index: int, split: str, data: bytes, columns: dict[str, Any]) -> str:
        path = None
        try:
            with self._db.transaction() as session:
                dataset = find_dataset(session, dataset_id, lock=True)
                refuse_in_use(session, dataset)
                self._refuse_known(session, dataset, columns)
                position = _next_position(session, dataset, class_index, split)
                folder = dataset.classes[class_index]["folder"]
                image_format = columns["format"]
                path = self._folder.dataset_image_path(dataset.name, split, folder, position, image_format)
                self._folder.write(path, data)
                place = {"split": split, "class_index": class_index, "position": position, "path": path}
                image = Image(id=new_id(), dataset_id=dataset_id, source="real", **place, **columns)
                session.add(image)
                if dataset.status == "empty":
                    dataset.status = "ready"
        except BaseException:
            if path is not None:
                self._forget(path)
            raise
        return image.id

    def _refuse_known(self, session: Session, dataset: Dataset, columns: dict[str, Any]) -> None:
        """Refuse the same picture as an uploaded one, and the same file as any of the dataset."""
        files = (columns["sha256"], columns["lineage"]["uploaded_sha256"])
        same = (Image.pixels_sha256 == columns["pixels_sha256"]) | Image.sha256.in_(files)
        known = session.scalar(select(Image.id).where(Image.dataset_id == dataset.id, same).limit(1))
        if known is not None:
            raise DuplicateImage(known)
        if num_images_of(session, dataset.id) >= self._limits.dataset_images:
            raise Invalid(f"a dataset has at most {self._limits.dataset_images} images", code="too_many_images")

    def _forget(self, path: str) -> None:
        """Remove the file of a row that was not committed; it stays where the answer to a commit was lost."""
        try:
            with self._db.snapshot() as session:
                if session.scalar(select(Image.id).where(Image.path == path)) is None:
                    self._folder.delete(path)
        except AppError:
            return  # the next start, or upload to the dataset, removes it


def _recorded(session: Session, dataset_id: str) -> set[str]:
    """Return the paths of a dataset's uploaded images."""
    return set(session.scalars(select(Image.path).where(Image.dataset_id == dataset_id, Image.source == "real")))


def _next_position(session: Session, dataset: Dataset, class_index: int, split: str) -> int:
    """Return the first free position behind those that generated images have or may still get."""
    here = (Image.dataset_id == dataset.id, Image.split == split, Image.class_index == class_index)
    last = session.scalar(select(func.max(Image.position)).where(*here))
    reserved = dataset.train_per_class if split == "train" else dataset.test_per_class
    return max(reserved, 0 if last is None else last + 1)

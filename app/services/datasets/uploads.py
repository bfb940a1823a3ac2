"""The service that adds uploaded images to a dataset: each file is decoded, re-encoded, written and recorded.

Each file has one transaction that locks the dataset's row. The file is written inside the transaction, before the
commit, so that every row has its file. A process killed between the two leaves a file without a row; the next start of
a node, or the next upload to the dataset, moves it to `.lost+found`. Imports no HTTP framework. Runs on the event loop
of the API process and calls decoding, files and records on thread pools; concurrent requests alternate file by file.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, BinaryIO, get_args

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.access.caller import Caller
from app.access.quotas import refuse_when_stored_full
from app.db.base import new_id
from app.db.models import Dataset, Image
from app.db.session import Database
from app.error_codes import ErrorCode
from app.errors import AppError, Invalid, PayloadTooLarge, QueueFull, UnsupportedImage
from app.image_spec import OutputFormat
from app.names import find_name
from app.schemas.uploads import RefusedFile, UploadedFile, UploadForm, UploadRead
from app.services.datasets.records import kept_images
from app.services.datasets.rows import find_dataset, refuse_in_use
from app.services.datasets.slots import first_free_position, record_upload
from app.services.images.lost_files import lost_image
from app.services.limits import Limits
from app.services.process.thread_pools import Pools
from app.services.store.recovery import clear_dataset_folders
from app.storage.image_formats import ReencodedImage, ReencodeImage
from app.storage.layout import DataFolder
from app.storage.lost_found import keep_in_lost_found
from app.storage.picture_size import SMALL_BYTES, is_large
from app.storage.soundness import FileChecks

# Concurrent requests; each has at most one call in the pools, whose queues are longer than this.
MAX_AT_ONCE = 32
RETRY_AFTER_S = 5


class DuplicateImage(Exception):
    """The dataset has this image already."""

    def __init__(self, image_id: str) -> None:
        super().__init__(image_id)
        self.image_id = image_id


class UploadService:
    """Adds uploaded images to datasets."""

    def __init__(self, db: Database, folder: DataFolder, limits: Limits, pools: Pools, reencode: ReencodeImage) -> None:
        """Wire the service; `folder` is the node's data folder, `reencode` reads untrusted image files."""
        self._db = db
        self._folder = folder
        self._checks = FileChecks(folder)
        self._limits = limits
        self._pools = pools
        self._reencode = reencode
        self._num_requests = 0  # changed on the event loop alone

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Count one request against the limit of concurrent uploads, from before its files are read until it ends.

        Raises:
            QueueFull: The limit is reached.
        """
        if self._num_requests >= MAX_AT_ONCE:
            raise QueueFull("The limit of concurrent uploads is reached. Try again later.", retry_after_s=RETRY_AFTER_S)
        self._num_requests += 1
        try:
            yield
        finally:
            self._num_requests -= 1

    def check_room(self) -> None:
        """Raise unless the storage has room; called before a form is read, which may be buffered on the same disk.

        Raises:
            StorageFull: There is no room.
        """
        self._folder.reserve.check()

    async def add(self, dataset_id: str, form: UploadForm, files: Sequence[BinaryIO], caller: Caller) -> UploadRead:
        """Add files to a class and split; a file with a fault of its own is refused alone.

        Any other error ends the request. The files stored before it stay, and are duplicates when they are sent again.

        Raises:
            NotFound: There is no dataset with this id.
            Invalid: The dataset has no class of this name.
            Conflict: A job uses the dataset.
            QuotaExceeded: The caller has stored all that it may.
            StorageFull: There is no room.
        """
        class_index = await self._pools.uploads.run(partial(self._prepare, dataset_id, form, caller))
        results = [
            await self._try(dataset_id, class_index, form.split, index, file) for index, file in enumerate(files)
        ]
        num_accepted = sum(result.refused is None for result in results)
        return UploadRead(num_accepted=num_accepted, num_refused=len(results) - num_accepted, files=results)

    def _prepare(self, dataset_id: str, form: UploadForm, caller: Caller) -> int:
        """Check what concerns all files, move unrecorded uploads away, and return the index of the class."""
        with self._db.transaction() as session:
            dataset = find_dataset(session, dataset_id, lock=True)
            refuse_in_use(session, dataset)
            refuse_when_stored_full(session, caller)
            class_index = find_name(form.class_name, [entry["name"] for entry in dataset.classes])
            if class_index is None:
                raise Invalid.field("#/class_name", "The dataset has no class of this name.", ErrorCode.CLASS_NOT_FOUND)
            clear_dataset_folders(session, self._folder, dataset, uploads_alone=True)
            return class_index

    async def _try(self, dataset_id: str, class_index: int, split: str, index: int, file: BinaryIO) -> UploadedFile:
        try:
            pool = self._pools.decoding
            if await self._pools.uploads.run(partial(_is_large, file)):
                pool = self._pools.large_pictures
            image = await pool.run(partial(self._read, file))
            store = partial(self._store, dataset_id, class_index, split, image.data, _columns(image))
            image_id = await self._pools.uploads.run(store)
        except DuplicateImage as error:
            code, detail = ErrorCode.DUPLICATE_IMAGE, "The dataset has this image already."
            refused = RefusedFile(code=code, detail=detail, duplicate_of=error.image_id)
        except (PayloadTooLarge, UnsupportedImage, Invalid) as error:
            refused = RefusedFile(code=error.code, detail=error.detail, duplicate_of=None)
        else:
            return UploadedFile(index=index, image_id=image_id, refused=None)
        return UploadedFile(index=index, image_id=None, refused=refused)

    def _read(self, file: BinaryIO) -> ReencodedImage:
        limits = self._limits
        uploaded = file.read(limits.upload_bytes + 1)
        return self._reencode(uploaded, max_bytes=limits.upload_bytes, max_pixels=limits.upload_pixels)

    def _store(self, dataset_id: str, class_index: int, split: str, data: bytes, columns: dict[str, Any]) -> str:
        path = None
        try:
            with self._db.transaction() as session:
                dataset = find_dataset(session, dataset_id, lock=True)
                refuse_in_use(session, dataset)
                if restored := self._restored(session, dataset, data, columns):
                    return restored
                self._refuse_known(session, dataset, columns)
                position = first_free_position(session, dataset, class_index, split)
                path = self._free_path(session, dataset, class_index, split, position, columns["format"])
                self._folder.write(path, data)
                slot = {"split": split, "class_index": class_index, "position": position, "path": path}
                image = Image(id=new_id(), dataset_id=dataset_id, source="real", **slot, **columns)
                session.add(image)
                record_upload(session, dataset, image)
        except BaseException:
            if path is not None:
                self._forget(path)
            raise
        return image.id

    def _free_path(
        self, session: Session, dataset: Dataset, class_index: int, split: str, position: int, image_format: str
    ) -> str:
        """Return a path whose number no image of the class and split has in its name, in any format.

        It is the position, unless an extension has moved an earlier upload away from this position: files keep their
        names. Then it is a number behind all positions.
        """
        folder = dataset.classes[class_index]["folder"]

        def paths(number: int) -> list[str]:
            formats = (image_format, *(other for other in get_args(OutputFormat) if other != image_format))
            return [self._folder.dataset_image_path(dataset.name, split, folder, number, one) for one in formats]

        here = (Image.dataset_id == dataset.id, Image.split == split, Image.class_index == class_index)
        numbers = itertools.chain(
            [position], itertools.count(1 + (session.scalar(select(func.max(Image.position)).where(*here)) or 0))
        )
        taken = select(Image.id).where(*here).limit(1)
        return next(
            found[0] for found in map(paths, numbers) if session.scalar(taken.where(Image.path.in_(found))) is None
        )

    def _restored(self, session: Session, dataset: Dataset, data: bytes, columns: dict[str, Any]) -> str | None:
        """Restore the file of a recorded upload if this is its content and the file is lost; return the image's id."""
        same = (Image.dataset_id == dataset.id, Image.source == "real", Image.sha256 == columns["sha256"])
        known = session.scalars(select(Image).where(*same)).first()
        if known is None or lost_image(self._checks, known) is None:
            return None
        keep_in_lost_found(self._folder, known.path)
        self._folder.write(known.path, data)
        return known.id

    def _refuse_known(self, session: Session, dataset: Dataset, columns: dict[str, Any]) -> None:
        """Raise if an upload has the same pixels or any image has the same file, or if the dataset is full.

        Raises:
            DuplicateImage: The dataset has this image.
            Invalid: `too_many_images`.
        """
        files = (columns["sha256"], columns["lineage"]["uploaded_sha256"])
        same = (Image.pixels_sha256 == columns["pixels_sha256"]) | Image.sha256.in_(files)
        known = session.scalar(select(Image.id).where(Image.dataset_id == dataset.id, same).limit(1))
        if known is not None:
            raise DuplicateImage(known)
        stored = kept_images(dataset.id).with_only_columns(func.count(Image.id))
        if (session.scalar(stored) or 0) >= self._limits.dataset_images:
            raise Invalid(
                f"A dataset can have at most {self._limits.dataset_images} images.", code=ErrorCode.TOO_MANY_IMAGES
            )

    def _forget(self, path: str) -> None:
        """Remove a file whose row was not committed; the row is read first, as the result of the commit may be lost."""
        try:
            with self._db.snapshot() as session:
                if session.scalar(select(Image.id).where(Image.path == path)) is None:
                    self._folder.delete(path)
        except AppError:
            return  # the next start, or the next upload to the dataset, moves the file away


def _is_large(file: BinaryIO) -> bool:
    """Return whether a file takes long to decode, and go back to its beginning."""
    begun = file.read(SMALL_BYTES + 1)
    file.seek(0)
    return is_large(begun)


def _columns(image: ReencodedImage) -> dict[str, Any]:
    """Return the columns of an upload's row that depend on its content."""
    return {
        "format": image.format,
        "width": image.width,
        "height": image.height,
        "num_bytes": len(image.data),
        "sha256": image.sha256,
        "pixels_sha256": image.pixels_sha256,
        "lineage": {"uploaded_sha256": image.uploaded_sha256, "uploaded_bytes": image.uploaded_bytes},
    }

"""The layout of the data folder: the path of each kind of file, and their writing, reading and removal.

    images/{last two of id}/{id}.{format}
    datasets/{name}/{split}/{class folder}/{position}-{seed}.{format}     what torchvision's ImageFolder reads
    rejected/{name}/{split}/{class folder}/...                            what a dataset's filter rejected
    models/{id}/model.safetensors
    finetuning/{id of a job}/...                                          checkpoints, see app/finetuning/checkpoints.py
    features/...                                                          a cache, see features.py
    exports/{id of a model}/...                                           a cache, see exports.py
    thumbnails/{path of an image}/{width}.webp                            a cache, see thumbnails.py
    .tmp/                                                                 unfinished and removed files
    .reserve                                                              space for deletions, see reserve.py
    .taken/{id of a dataset}/                                             the trash: files of a dataset being deleted
    .lost+found/{date}/{relative path}                                    files without a record, see lost_found.py
    store_id                                                              the id of this store, see store_id.py

Records contain paths relative to the data folder. `ImageFolder` must be able to load a split at any time, so a class
folder is created together with its first image, removed together with its last one, and contains nothing else. Rejected
images have a folder outside of `datasets`, since loaders search for `train` and `test` anywhere below a dataset's
folder. Imports no database models and parses no file. Any thread and any process may use it.
"""

import errno
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from app.errors import NotFound
from app.storage.files import (
    TEMPORARIES,
    contained_path,
    make_folder,
    remove_file,
    remove_tree,
    storage_errors,
    sweep_temporaries,
    sync_folder,
    write_atomic,
)
from app.storage.inventory import paths_below
from app.storage.reserve import NO_RESERVE, Reserve

_DATASETS = "datasets"
_REJECTED = "rejected"
TRASH = ".taken"
FINE_TUNING = "finetuning"
LOST_FOUND = ".lost+found"
# Slashes in the relative path of a dataset's image.
_DATASET_DEPTH = 4
# The file name of an uploaded image has no seed.
_UPLOADED = re.compile(r"[0-9]{6,}\.[a-z]+")


class DataFolder:
    """The data folder: returns the path of each kind of file, and writes, reads and removes files.

    Any number of threads and processes may use it at once, except that no file of a dataset may be deleted while one is
    written to the same dataset.
    """

    def __init__(self, root: Path, reserve: Reserve = NO_RESERVE) -> None:
        self.root = root.resolve()
        self.reserve = reserve
        self.features = self.root / "features"
        self.exports = self.root / "exports"
        self.thumbnails = self.root / "thumbnails"
        self.temporaries = self.root / TEMPORARIES
        self._with_temporaries = (self.root, self.features, self.thumbnails)

    def image_path(self, image_id: str, image_format: str) -> str:
        """Return the relative path of a generated image; the last two characters of its id are the folder."""
        return f"images/{image_id[-2:]}/{image_id}.{image_format}"

    def dataset_image_path(
        self,
        dataset: str,
        split: str,
        class_folder: str,
        position: int,
        image_format: str,
        *,
        seed: int | None = None,
        is_kept: bool = True,
    ) -> str:
        """Return the relative path of a dataset's image, kept or rejected; `seed` is None for an uploaded one."""
        stem = f"{position:06d}" if seed is None else f"{position:06d}-{seed}"
        return f"{_DATASETS if is_kept else _REJECTED}/{dataset}/{split}/{class_folder}/{stem}.{image_format}"

    def model_path(self, model_id: str) -> str:
        """Return the relative path of a trained model's weights."""
        return f"models/{model_id}/model.safetensors"

    def fine_tuning_folder(self, job_id: str) -> Path:
        """Return the folder of a job's checkpoints; it may not exist."""
        return contained_path(self.root / FINE_TUNING, job_id)

    def remove_fine_tuning(self, job_id: str) -> None:
        """Delete a job's checkpoints; a job without any is no error."""
        remove_tree(self.fine_tuning_folder(job_id), temporaries=self.temporaries)

    def place_model(self, source: Path, model_id: str) -> None:
        """Move a finished file into a model's place, in one step; an older file there is replaced."""
        target = contained_path(self.root, self.model_path(model_id))
        with storage_errors():
            make_folder(target.parent)
            os.replace(source, target)
            sync_folder(target.parent)

    def dataset_folder(self, dataset: str) -> Path:
        """Return the folder of a dataset, which contains its splits; it may not exist."""
        return contained_path(self.root / _DATASETS, dataset)

    def write(self, path: str, data: bytes) -> None:
        """Write a file at a relative path, atomically and durably; a missing folder is created with the file in it.

        Raises:
            ValueError: The path leaves the data folder.
            StorageFull: There is no room beyond the reserve; no partial file remains.
            Unavailable: The storage cannot be written.
        """
        self.reserve.check()
        target = contained_path(self.root, path)
        make_folder(self.temporaries)
        # An iteration fails only if another writer has created a folder of this path.
        for _ in target.relative_to(self.root).parts:
            if target.parent.is_dir():
                break
            if self._write_with_folders(target, data):
                return
        write_atomic(target, data, temporaries=self.temporaries)

    def open(self, path: str) -> BinaryIO:
        """Open a stored file for reading.

        Raises:
            NotFound: There is no regular file inside the data folder at this path.
            Unavailable: The storage cannot be read.
        """
        try:
            with storage_errors():
                # O_NONBLOCK: opening a FIFO must not block.
                descriptor = os.open(contained_path(self.root, path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except (OSError, ValueError) as error:  # errors of the path; `storage_errors` has converted the others
            raise NotFound from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise NotFound
        return open(descriptor, "rb")

    def read(self, path: str) -> bytes:
        """Read a stored file whole; raises NotFound and Unavailable like `open`."""
        with storage_errors(), self.open(path) as file:
            return file.read()

    def locate(self, path: str) -> Path:
        """Return the absolute path of a stored file; raises NotFound and Unavailable like `open`."""
        self.open(path).close()
        return contained_path(self.root, path)

    def delete(self, path: str) -> None:
        """Remove a stored file, its small copies, and its class folder if it is the last file there.

        A missing file is no error.
        """
        target = contained_path(self.root, path)
        self.remove_thumbnails(path)
        if target.is_relative_to(self.root / _DATASETS) and (folder := self._holder_of_nothing_else(target)):
            remove_tree(folder, temporaries=self.temporaries)
        else:
            remove_file(target)

    def remove_thumbnails(self, path: str) -> None:
        """Remove the small copies of a stored image; what cannot be removed is evicted later."""
        shutil.rmtree(contained_path(self.thumbnails, path), ignore_errors=True)

    def uploads(self, dataset: str) -> set[str]:
        """Return the relative paths of a dataset's files that have the name of an uploaded image, recorded or not."""
        files = self.dataset_folder(dataset).glob("*/*/*")
        return {str(path.relative_to(self.root)) for path in files if _UPLOADED.fullmatch(path.name)}

    def trash_dataset(self, dataset: str, dataset_id: str) -> None:
        """Move a dataset's folders, of kept and of rejected images, to the trash, each in one step.

        `purge_dataset` or `restore_dataset` follows.
        """
        small = [(folder, trashed) for folder, trashed in self._thumbnail_moves(dataset, dataset_id) if folder.is_dir()]
        for folder, trashed in (*self._trash_moves(dataset, dataset_id), *small):
            with storage_errors():
                make_folder(trashed.parent)
                if folder.is_dir():
                    os.rename(folder, trashed)
                    sync_folder(folder.parent)

    def trashed_datasets(self) -> list[str]:
        """Return the ids of the datasets whose files are in the trash."""
        return sorted(path.name for path in (self.root / TRASH).glob("*"))

    def trash_path(self, dataset_id: str) -> str:
        """Return the relative path of a dataset's files in the trash."""
        return f"{TRASH}/{dataset_id}"

    def is_trashed_since(self, dataset_id: str, age_s: float) -> bool:
        """Return whether a dataset's files have been in the trash for at least `age_s` seconds."""
        with suppress(FileNotFoundError):
            return time.time() - (self.root / TRASH / dataset_id).lstat().st_mtime >= age_s
        return False

    def restore_dataset(self, dataset: str, dataset_id: str) -> None:
        """Move a dataset's files from the trash back to their folders; a dataset without files is no error."""
        for folder, trashed in self._trash_moves(dataset, dataset_id):
            with storage_errors():
                if trashed.is_dir():
                    os.rename(trashed, folder)
                    sync_folder(folder.parent)
        self.purge_dataset(dataset_id)

    def purge_dataset(self, dataset_id: str) -> None:
        """Delete a dataset's files in the trash; a dataset without files is no error.

        The folder first leaves the trash in one step, so that a later recovery finds only interrupted deletions there.
        """
        remove_tree(contained_path(self.root / TRASH, dataset_id), temporaries=self.temporaries)

    def dataset_paths(self, dataset: str) -> Iterator[str]:
        """Yield the relative path of each file of a dataset, kept and rejected."""
        for kind in (_DATASETS, _REJECTED):
            contained_path(self.root / kind, dataset)
            for path in paths_below(self.root, f"{kind}/{dataset}"):
                if path.count("/") == _DATASET_DEPTH:
                    yield path

    def trees(self, dataset: str) -> list[str]:
        """Return the relative paths of a dataset's folders of kept and of rejected images; they may not exist."""
        return [f"{kind}/{dataset}" for kind in (_DATASETS, _REJECTED)]

    def idle_datasets(self, *, older_than_s: float = 3600.0) -> set[str]:
        """Return the names of the datasets whose folders have not changed for `older_than_s` seconds."""
        before = time.time() - older_than_s
        found, busy = set[str](), set[str]()
        for kind in (_DATASETS, _REJECTED):
            for folder in (self.root / kind).glob("*"):
                with suppress(FileNotFoundError):  # deleted meanwhile
                    (busy if folder.lstat().st_mtime >= before else found).add(folder.name)
        return found - busy

    def sweep(self, *, older_than_s: float = 3600.0) -> int:
        """Remove temporary files of killed processes; see `sweep_temporaries`. Returns their number."""
        return sum(sweep_temporaries(root, older_than_s=older_than_s) for root in self._with_temporaries)

    def _trash_moves(self, dataset: str, dataset_id: str) -> list[tuple[Path, Path]]:
        """Return a dataset's folders, each with its path in the trash."""
        trash = contained_path(self.root / TRASH, dataset_id)
        return [(contained_path(self.root / kind, dataset), trash / kind) for kind in (_DATASETS, _REJECTED)]

    def _thumbnail_moves(self, dataset: str, dataset_id: str) -> list[tuple[Path, Path]]:
        """Return the folders of a dataset's small copies, each with its path in the trash; they are not restored."""
        trash = contained_path(self.root / TRASH, dataset_id) / self.thumbnails.name
        return [(contained_path(self.thumbnails / kind, dataset), trash / kind) for kind in (_DATASETS, _REJECTED)]

    def _write_with_folders(self, target: Path, data: bytes) -> bool:
        """Create the missing folders with the file inside, then rename them into place; False if they exist by then."""
        missing = next((folder for folder in reversed(target.parents) if not folder.is_dir()), None)
        if missing is None:
            return False
        staged = self.temporaries / uuid.uuid4().hex
        try:
            write_atomic(staged / target.relative_to(missing), data, temporaries=self.temporaries)
            with storage_errors():
                os.rename(staged, missing)
                sync_folder(missing.parent)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        return True

    def _holder_of_nothing_else(self, target: Path) -> Path | None:
        """Return the outermost folder of a dataset that contains only this file; None if there is none."""
        if not os.path.lexists(target):  # the only file of the folder is then another one
            return None
        holder = None
        for folder in target.parents:
            if folder == self.root / _DATASETS or not folder.is_dir() or len(os.listdir(folder)) > 1:
                break
            holder = folder
        return holder

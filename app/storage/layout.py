"""Where things lie in the data folder, and how they get there. Knows no records and looks into no file.

    images/{last two of id}/{id}.{format}
    datasets/{name}/{split}/{class folder}/{position}-{seed}.{format}     what torchvision's ImageFolder reads
    rejected/{name}/{split}/{class folder}/...                            what a dataset's filter rejected
    models/{id}/model.safetensors
    features/...                                                          a cache, see features.py
    .tmp/                                                                 unfinished and removed things
    .reserve                                                              room for deletions, see reserve.py
    .taken/{id of a dataset}/                                             a dataset's files while it is deleted
    .lost+found/{date}/{relative path}                                    what no record named, see lost_found.py
    store_id                                                              which store this is, see store_id.py

Records hold paths relative to the data folder. `ImageFolder` must load a split at every moment, so a class
folder appears together with its first image, goes together with its last one, and never holds anything else.
Rejected images lie beside all datasets, since loaders look for `train` and `test` anywhere below a dataset's folder.
"""

import errno
import hashlib
import itertools
import os
import re
import shutil
import stat
import time
import unicodedata
import uuid
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from app.errors import NotFound
from app.names import equal_names
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
from app.storage.reserve import NO_RESERVE, Reserve

_DATASETS = "datasets"
_REJECTED = "rejected"
_TAKEN = ".taken"
LOST_FOUND = ".lost+found"
_MAX_SLUG_CHARS = 48
# An uploaded image has no seed in its name.
_UPLOADED = re.compile(r"[0-9]{6,}\.[a-z]+")
# Device names on Windows, with any extension.
_RESERVED = {"con", "prn", "aux", "nul"} | {f"{port}{digit}" for port in ("com", "lpt") for digit in range(10)}


class DataFolder:
    """The data folder: names the place of each kind of file, and writes, reads and removes files there.

    Any thread and any number of processes may use it side by side, but nothing may be deleted from a dataset
    while something is written to it.
    """

    def __init__(self, root: Path, reserve: Reserve = NO_RESERVE) -> None:
        self.root = root.resolve()
        self.reserve = reserve
        self.features = self.root / "features"
        self._temporaries = self.root / TEMPORARIES

    def image_path(self, image_id: str, image_format: str) -> str:
        """Name the relative path of a generated image; two characters of the id spread them over folders."""
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
        """Name the relative path of a dataset's image, kept or rejected; `seed` is None for an uploaded one."""
        stem = f"{position:06d}" if seed is None else f"{position:06d}-{seed}"
        return f"{_DATASETS if is_kept else _REJECTED}/{dataset}/{split}/{class_folder}/{stem}.{image_format}"

    def model_path(self, model_id: str) -> str:
        """Name the relative path of a trained model's weights."""
        return f"models/{model_id}/model.safetensors"

    def dataset_folder(self, dataset: str) -> Path:
        """Give the folder of a dataset, which holds its splits; it may not exist yet."""
        return contained_path(self.root / _DATASETS, dataset)

    def write(self, path: str, data: bytes) -> None:
        """Put a whole file at a relative path, atomically and on disk; a missing folder appears with the file in it.

        Raises:
            ValueError: The path leaves the data folder.
            StorageFull: There is no room, or no more than the reserve; nothing is left behind.
            Unavailable: The storage cannot be written.
        """
        self.reserve.check()
        target = contained_path(self.root, path)
        make_folder(self._temporaries)
        # A turn is lost only to a writer that put a folder of this path in place.
        for _ in target.relative_to(self.root).parts:
            if target.parent.is_dir():
                break
            if self._write_with_folders(target, data):
                return
        write_atomic(target, data, temporaries=self._temporaries)

    def open(self, path: str) -> BinaryIO:
        """Open a stored file for reading.

        Raises:
            NotFound: There is no regular file inside the data folder at this path.
            Unavailable: The storage cannot be read.
        """
        try:
            with storage_errors():
                # O_NONBLOCK: a FIFO in a file's place must not hang the reader.
                descriptor = os.open(contained_path(self.root, path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except (OSError, ValueError) as error:  # of the path: what the storage itself refuses is none of both here
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
        """Give the absolute path of a stored file; raises NotFound like `open`."""
        self.open(path).close()
        return contained_path(self.root, path)

    def delete(self, path: str) -> None:
        """Remove a stored file; the last file of a class takes its folder with it. One that is gone is no error."""
        target = contained_path(self.root, path)
        if target.is_relative_to(self.root / _DATASETS) and (folder := self._holder_of_nothing_else(target)):
            remove_tree(folder, temporaries=self._temporaries)
        else:
            remove_file(target)

    def set_aside(self, path: str) -> None:
        """Keep what lies at a path in `.lost+found/{date}/{path}`, before something else is written there.

        A file also stays where it is, so that no class folder is empty meanwhile; anything else is moved. There need
        not be anything.
        """
        source = self.root / path
        contained_path(self.root, str(Path(path).parent))
        if not os.path.lexists(source):
            return
        kept = self.root / LOST_FOUND / time.strftime("%Y-%m-%d") / path
        with storage_errors():
            make_folder(kept.parent)
            is_file = stat.S_ISREG(source.lstat().st_mode)
            for number in itertools.count():
                place = kept.with_name(f"{kept.name}.{number}") if number else kept
                if is_file and place.is_file() and place.samefile(source):
                    return  # by somebody who died before he wrote the other one
                if os.path.lexists(place):
                    continue
                os.link(source, place) if is_file else os.rename(source, place)
                sync_folder(place.parent)
                return

    def uploads(self, dataset: str) -> set[str]:
        """Name the relative paths of a dataset's uploaded images, as far as their names tell, recorded or not."""
        files = self.dataset_folder(dataset).glob("*/*/*")
        return {str(path.relative_to(self.root)) for path in files if _UPLOADED.fullmatch(path.name)}

    def take_dataset(self, dataset: str, dataset_id: str) -> None:
        """Take a dataset's files, rejected ones too, out of sight, to be dropped or put back.

        From outside it is whole at one moment and gone at the next.
        """
        for place, taken in self._takings(dataset, dataset_id):
            with storage_errors():
                make_folder(taken.parent)
                if place.is_dir():
                    os.rename(place, taken)
                    sync_folder(place.parent)

    def taken_datasets(self) -> list[str]:
        """List the ids of the datasets whose files are taken out of sight."""
        return sorted(path.name for path in (self.root / _TAKEN).glob("*"))

    def taken_tree(self, dataset_id: str) -> str:
        """Name the relative path of a dataset's files while they are out of sight."""
        return f"{_TAKEN}/{dataset_id}"

    def is_taken_since(self, dataset_id: str, age_s: float) -> bool:
        """Tell whether a dataset's files have been out of sight for so long, in seconds."""
        with suppress(FileNotFoundError):
            return time.time() - (self.root / _TAKEN / dataset_id).lstat().st_mtime >= age_s
        return False

    def put_dataset_back(self, dataset: str, dataset_id: str) -> None:
        """Put a dataset's files back where they were; there need not be any."""
        for place, taken in self._takings(dataset, dataset_id):
            with storage_errors():
                if taken.is_dir():
                    os.rename(taken, place)
                    sync_folder(place.parent)
        self.drop_taken_dataset(dataset_id)

    def drop_taken_dataset(self, dataset_id: str) -> None:
        """Remove files that were taken out of sight; there need not be any.

        First of all they leave `.taken`: what is found there later was not dropped on purpose.
        """
        remove_tree(contained_path(self.root / _TAKEN, dataset_id), temporaries=self._temporaries)

    def dataset_paths(self, dataset: str) -> Iterator[str]:
        """Give the relative path of each file of a dataset, rejected ones too."""
        for root in (self.dataset_folder(dataset), contained_path(self.root / _REJECTED, dataset)):
            yield from self._paths(root.glob("*/*/*"))

    def trees(self, dataset: str) -> list[str]:
        """Name the relative paths of the folders of a dataset, of kept and of rejected images; neither need exist."""
        return [f"{kind}/{dataset}" for kind in (_DATASETS, _REJECTED)]

    def idle_datasets(self, *, older_than_s: float = 3600.0) -> set[str]:
        """Name the datasets whose folder, of kept or rejected images, has not changed for so long, in seconds."""
        before = time.time() - older_than_s
        found = [folder for kind in (_DATASETS, _REJECTED) for folder in (self.root / kind).glob("*")]
        return {folder.name for folder in found} - {
            folder.name for folder in found if folder.lstat().st_mtime >= before
        }

    def sweep(self, *, older_than_s: float = 3600.0) -> int:
        """Remove what dead processes left unfinished; see `sweep_temporaries`."""
        return sum(sweep_temporaries(root, older_than_s=older_than_s) for root in (self.root, self.features))

    def _takings(self, dataset: str, dataset_id: str) -> list[tuple[Path, Path]]:
        """Name a dataset's folders, and where each is while it is taken."""
        taken = contained_path(self.root / _TAKEN, dataset_id)
        return [(contained_path(self.root / kind, dataset), taken / kind) for kind in (_DATASETS, _REJECTED)]

    def _paths(self, found: Iterable[Path]) -> Iterator[str]:
        for path in found:
            if path.is_file() and not path.is_symlink():
                yield str(path.relative_to(self.root))

    def _write_with_folders(self, target: Path, data: bytes) -> bool:
        """Build the missing folders with the file in them, then rename them into place; False if another was first."""
        missing = next((folder for folder in reversed(target.parents) if not folder.is_dir()), None)
        if missing is None:
            return False
        staged = self._temporaries / uuid.uuid4().hex
        try:
            write_atomic(staged / target.relative_to(missing), data, temporaries=self._temporaries)
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
        """Find the outermost folder of a dataset that holds this file alone."""
        if not os.path.lexists(target):  # else the one file beside it would look like the last of its class
            return None
        holder = None
        for folder in target.parents:
            if folder == self.root / _DATASETS or not folder.is_dir() or len(os.listdir(folder)) > 1:
                break
            holder = folder
        return holder


def class_folders(names: Sequence[str]) -> list[str]:
    """Turn class names, which may be any text, into folder names that every filesystem keeps apart.

    A folder depends on its own name and those before it alone, so a class added later changes none.

    Args:
        names: Class names in the dataset's order.

    Returns:
        One folder name each, `[a-z0-9][a-z0-9._-]*`, at most 64 characters, unequal even where case is ignored.

    Raises:
        ValueError: Two names are the same name; see `app.names`.
    """
    if equal_names(names):
        raise ValueError("two class names are equal")
    taken: dict[str, None] = {}  # in the order of the names
    for name in names:
        # Less than a name's key leaves out: the folder of a name is what it was in every release.
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        taken[_free_folder(folded, taken=taken.keys())] = None
    return list(taken)


def _free_folder(key: str, *, taken: Set[str]) -> str:
    slug = _slug(key)
    if slug and slug not in taken:
        return slug
    candidates = (f"{slug or 'class'}-{_short_hash(key, attempt)}" for attempt in itertools.count())
    return next(candidate for candidate in candidates if candidate not in taken)


def _short_hash(key: str, attempt: int) -> str:
    return hashlib.sha256(f"{attempt}:{key}".encode("utf-8", "surrogatepass")).hexdigest()[:8]


def _slug(key: str) -> str:
    """Reduce text to `[a-z0-9._-]`; empty where nothing of it remains."""
    ascii_text = unicodedata.normalize("NFKD", key).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9._-]+", "-", ascii_text).strip("._-")[:_MAX_SLUG_CHARS].rstrip("._-")
    return f"class-{slug}" if slug.split(".")[0] in _RESERVED else slug

"""Exported models as files, `exports/{model id}/{edition}-{hash}.{ending}`: making an ONNX file takes half a minute.

Derived files: whatever is missing, damaged or of another edition is made again. They have no records; the folder of a
model that is gone is removed. Imports no database models. Any thread and any process may use one folder.
"""

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.storage.files import contained_path, make_folder, remove_file, remove_tree, storage_errors
from app.storage.layout import DataFolder
from app.storage.soundness import FileChecks

# All exports of a node; the oldest are removed beyond it. A hundred files of a ResNet18 have 4.5 GB.
MAX_BYTES: Final = 5_000_000_000


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """A file and the SHA-256 of its content, hexadecimal."""

    path: Path
    sha256: str


class ExportFiles:
    """Finds, keeps and removes exported files."""

    def __init__(self, folder: DataFolder, checks: FileChecks, edition: str, max_bytes: int = MAX_BYTES) -> None:
        """Describe the files.

        Args:
            folder: The data folder.
            checks: Compares files with the hash in their names.
            edition: Changes whenever equal models may give other files; letters, digits and dots.
            max_bytes: Of all files together, >= 1; the newest one stays in any case.
        """
        self._folder = folder
        self._checks = checks
        self._edition = edition
        self._max_bytes = max_bytes

    def find(self, model_id: str, ending: str) -> ExportedFile | None:
        """Return the sound file of a model in this edition; None if there is none."""
        for path in self._folder_of(model_id).glob(f"{self._edition}-*.{ending}"):
            sha256 = path.stem.rpartition("-")[2]
            with suppress(FileNotFoundError):  # evicted meanwhile
                num_bytes = path.stat().st_size
                relative = str(path.relative_to(self._folder.root))
                if self._checks.fault(relative, num_bytes=num_bytes, sha256=sha256) is None:
                    return ExportedFile(path, sha256)
        return None

    @contextmanager
    def staged(self) -> Iterator[Path]:
        """Yield the path of a file to write; it is removed at the end unless `keep` has moved it.

        Raises:
            StorageFull: There is no room beyond the reserve.
            Unavailable: The storage cannot be written.
        """
        self._folder.reserve.check()
        part = self._folder.temporaries / f"{uuid.uuid4().hex}.part"
        with storage_errors():
            make_folder(part.parent)
        try:
            yield part
        finally:
            part.unlink(missing_ok=True)

    def keep(self, staged: Path, model_id: str, ending: str) -> ExportedFile:
        """Give a written file its name, and remove the older ones of the model with this ending.

        Raises:
            StorageFull, Unavailable: The storage cannot be written.
        """
        with storage_errors():
            with staged.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            target = self._folder_of(model_id) / f"{self._edition}-{sha256}.{ending}"
            make_folder(target.parent)
            os.replace(staged, target)
        for older in target.parent.glob(f"*.{ending}"):
            if older != target:
                remove_file(older)
        self._evict(target)
        return ExportedFile(target, sha256)

    def forget(self, model_id: str) -> None:
        """Remove the files of a model; none is no error."""
        forget_exports(self._folder, model_id)

    def _folder_of(self, model_id: str) -> Path:
        return contained_path(self._folder.exports, model_id)

    def _evict(self, newest: Path) -> None:
        files = []
        for path in self._folder.exports.glob("*/*"):
            with suppress(FileNotFoundError):
                status = path.stat()
                files.append((status.st_mtime_ns, status.st_size, path))
        num_bytes = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if num_bytes <= self._max_bytes:
                break
            if path != newest:
                remove_file(path)
                num_bytes -= size


def forget_exports(folder: DataFolder, model_id: str) -> None:
    """Remove the exported files of a model; none is no error."""
    remove_tree(contained_path(folder.exports, model_id), temporaries=folder.temporaries)


def exported_models(folder: DataFolder) -> list[str]:
    """Return the ids of the models that have a folder of exported files."""
    try:
        return sorted(path.name for path in folder.exports.iterdir())
    except FileNotFoundError:
        return []

"""An image that is deleted between its record and its file is not found; a file that is lost is 410 as before."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.access.caller import LOCAL
from app.db.session import Database
from app.errors import FileLost, NotFound
from app.services.images.service import ImageService
from app.services.store.retention import Retention, prune
from app.storage.layout import DataFolder
from app.storage.soundness import Fault, FileChecks
from testing.old_images import add_generation, image_ids


class LateChecks(FileChecks):
    """Calls a function before each check, when the record has been read."""

    def __init__(self, folder: DataFolder, before: Callable[[], object]) -> None:
        super().__init__(folder)
        self._before = before

    def fault(self, path: str, **sums: Any) -> Fault | None:
        self._before()
        return super().fault(path, **sums)

    def read(self, path: str, **sums: Any) -> bytes:
        self._before()
        return super().read(path, **sums)


@pytest.mark.parametrize(
    "way", [ImageService.file, lambda images, image_id: images.content(image_id, LOCAL)], ids=["file", "content"]
)
@pytest.mark.parametrize("is_deleted", [True, False])
def test_deleted_is_not_lost(
    db: Database, tmp_path: Path, way: Callable[[ImageService, str], object], is_deleted: bool
) -> None:
    folder = DataFolder(tmp_path / "data")
    (image_id,) = image_ids(db, add_generation(db, folder))

    def delete() -> None:
        if is_deleted:
            prune(db, folder, Retention(days=0))
        else:
            folder.delete(folder.image_path(image_id, "png"))

    images = ImageService(db, folder, LateChecks(folder, delete))
    with pytest.raises(NotFound if is_deleted else FileLost):
        way(images, image_id)

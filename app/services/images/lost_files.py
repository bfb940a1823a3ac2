"""Images whose file is gone or damaged: how they are found, and the errors that name them.

Imports no HTTP framework and no engine. Pool threads of the API process and the worker's threads call it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import select

from app.db.models import Image
from app.db.session import Database
from app.error_codes import ErrorCode
from app.errors import FieldError, FileLost
from app.storage.archives import Member
from app.storage.soundness import Fault, FileChecks

# The lost files that one error names, at most.
MAX_LOST_NAMED = 20
# Bytes of one archive that are hashed before it is sent. The rest is hashed while it is sent; a fault ends the answer.
MAX_HASHED_BYTES = 1_000_000_000

# Plain strings: repairs store them in the database.
IMAGE_CODES: dict[Fault, str] = {
    "missing": ErrorCode.IMAGE_FILE_MISSING.value,
    "damaged": ErrorCode.IMAGE_FILE_DAMAGED.value,
}


@dataclass(frozen=True, slots=True)
class LostImage:
    """An image without a sound file.

    Attributes:
        image_id: Its id.
        path: Where its file is or was, relative to the data folder.
        code: `image_file_missing` or `image_file_damaged`; a repair has further ones.
    """

    image_id: str
    path: str
    code: str

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return asdict(self)


def lost_image(checks: FileChecks, image: Image) -> LostImage | None:
    """Return an image as lost if it has no sound file."""
    fault = checks.fault(image.path, num_bytes=image.num_bytes, sha256=image.sha256)
    return None if fault is None else LostImage(image.id, image.path, IMAGE_CODES[fault])


def refusal(lost: LostImage, dataset_id: str | None) -> FileLost:
    """Return the error for one image that cannot be served."""
    what = "missing" if lost.code == IMAGE_CODES["missing"] else "damaged"
    return FileLost(f"The file of image {lost.image_id} is {what}. {_remedy(dataset_id)}", code=lost.code)


def refusal_of_all(lost: Sequence[LostImage], num_lost: int, dataset_id: str) -> FileLost:
    """Return the error for work that needs all files of a dataset.

    Args:
        lost: The first lost images, at least one; `errors` names each, the detail the first three.
        num_lost: Lost images in all.
        dataset_id: The dataset.
    """
    first, named = lost[0], lost[:MAX_LOST_NAMED]
    names = ", ".join(f"{one.image_id} at {one.path}" for one in named[:3])
    have = "image has" if num_lost == 1 else "images have"
    detail = f"{num_lost} {have} no sound file: {names}{', …' if num_lost > 3 else ''}. {_remedy(dataset_id)}"
    errors = [FieldError(f"/images/{one.image_id}", one.path, one.code) for one in named]
    return FileLost(detail, code=first.code, errors=errors)


def refuse_lost(dataset_id: str, lost: Sequence[LostImage], num_lost: int | None = None) -> None:
    """Raise if there are lost images; the arguments are those of `refusal_of_all`, by default all are given.

    Raises:
        FileLost: With the images' ids.
    """
    if lost:
        raise refusal_of_all(lost, len(lost) if num_lost is None else num_lost, dataset_id)


def refuse_lost_members(db: Database, checks: FileChecks, dataset_id: str, members: Iterable[Member]) -> None:
    """Raise before an archive's first byte if a file that it consists of is lost.

    Raises:
        FileLost: With the images' ids.
    """
    codes: dict[str, str] = {}
    num_lost, num_bytes = 0, 0
    for member in members:
        if member.path is None:
            continue
        num_bytes += member.num_bytes
        is_hashed = num_bytes <= MAX_HASHED_BYTES
        sums = {"num_bytes": member.num_bytes, "sha256": member.sha256}
        if fault := checks.fault(member.path, **sums, is_hashed=is_hashed):  # type: ignore[arg-type]
            num_lost += 1
            if len(codes) < MAX_LOST_NAMED:
                codes[member.path] = IMAGE_CODES[fault]
    if codes:
        with db.snapshot() as session:
            rows = session.execute(select(Image.id, Image.path).where(Image.path.in_(codes)).order_by(Image.path))
            lost = [LostImage(row.id, row.path, codes[row.path]) for row in rows]
        raise refusal_of_all(lost, num_lost, dataset_id)


def _remedy(dataset_id: str | None) -> str:
    if dataset_id is None:
        return "Generate it again with the settings and the seed of its metadata."
    return f"POST /datasets/{dataset_id}/repair draws generated images again and names those to upload again."

"""Files that are gone or damaged, as their users are told of them: which images, and what can be done about it."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import select

from app.db.models import Image
from app.db.session import Database
from app.errors import FieldError, FileLost
from app.storage.archives import Member
from app.storage.soundness import Fault, FileChecks

# Of many lost files so many are named.
MAX_LOST_TOLD = 20
# Bytes of one archive that are hashed before it is sent; the rest is while it passes, and breaks it off.
MAX_HASHED_BYTES = 1_000_000_000

IMAGE_CODES: dict[Fault, str] = {"missing": "image_file_missing", "damaged": "image_file_damaged"}


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
    """Return the error for work on a dataset that needs all of its files.

    Args:
        lost: The first ones, at least one; each is named in `errors`, the first in the detail.
        num_lost: How many there are in all.
        dataset_id: The dataset.
    """
    first, told = lost[0], lost[:MAX_LOST_TOLD]
    names = ", ".join(f"{one.image_id} at {one.path}" for one in told[:3])
    have = "image has" if num_lost == 1 else "images have"
    detail = f"{num_lost} {have} no sound file: {names}{', …' if num_lost > 3 else ''}. {_remedy(dataset_id)}"
    errors = [FieldError(f"/images/{one.image_id}", one.path, one.code) for one in told]
    return FileLost(detail, code=first.code, errors=errors)


def refuse_lost_members(db: Database, checks: FileChecks, dataset_id: str, members: Iterable[Member]) -> None:
    """Refuse an archive of which a stored file is lost, before its first byte.

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
            if len(codes) < MAX_LOST_TOLD:
                codes[member.path] = IMAGE_CODES[fault]
    if codes:
        with db.snapshot() as session:
            rows = session.execute(select(Image.id, Image.path).where(Image.path.in_(codes)).order_by(Image.path))
            lost = [LostImage(row.id, row.path, codes[row.path]) for row in rows]
        raise refusal_of_all(lost, num_lost, dataset_id)


def _remedy(dataset_id: str | None) -> str:
    if dataset_id is None:
        return "Generate it again: its metadata tell the settings and the seed."
    return f"POST /datasets/{dataset_id}/repair draws generated images again and names those to upload again."

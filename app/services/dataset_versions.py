"""Which images a dataset is made of, and the hash that names this content. Knows nothing of how they came to be.

The one place that says which rows count: what is trained on, exported and hashed is what is selected here.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Select, func
from sqlalchemy.orm import Session

from app.db.models import Dataset, Image
from app.services.dataset_records import kept_images


def images_of(dataset_id: str) -> Select[Any]:
    """Select the images of a dataset, split by split, class by class, each class by position."""
    return kept_images(dataset_id).order_by(Image.split, Image.class_index, Image.position)


def num_images_of(session: Session, dataset_id: str, *, split: str | None = None) -> int:
    """Return how many images a dataset has, or one split of it."""
    query = images_of(dataset_id).with_only_columns(func.count(Image.id)).order_by(None)
    return session.scalar(query if split is None else query.where(Image.split == split)) or 0


def content_version(dataset: Dataset, images: Iterable[tuple[str | None, int | None, str]]) -> str:
    """Name a dataset's content: equal for equal files in equal classes and splits, whatever their order and names.

    Args:
        dataset: Gives the classes' names.
        images: Split, class index and SHA-256 of the file of every image.

    Returns:
        64 hexadecimal digits: the SHA-256 over one line `["split","class","sha256"]` an image, sorted.
    """
    names = [entry["name"] for entry in dataset.classes]
    digest = hashlib.sha256()
    for line in sorted((split, names[index or 0], sha256) for split, index, sha256 in images):
        digest.update(json.dumps(line, separators=(",", ":")).encode() + b"\n")
    return digest.hexdigest()


def read_version(session: Session, dataset: Dataset) -> str:
    """Return the version of a dataset's present content."""
    columns = images_of(dataset.id).with_only_columns(Image.split, Image.class_index, Image.sha256)
    return content_version(dataset, ((split, index, sha256) for split, index, sha256 in session.execute(columns)))

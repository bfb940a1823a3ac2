"""The images that belong to a dataset, and the hash that identifies this content.

Training, export and the hash use the same query, `images_of`. Imports no storage and no engine. Functions run inside
the caller's session, on the caller's thread.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Select, func
from sqlalchemy.orm import Session

from app.db.models import Dataset, Image
from app.services.datasets.records import images_in

# Rows fetched at a time when all images of a dataset are read.
ROWS_AT_ONCE = 1_000


def images_of(dataset_id: str) -> Select[Any]:
    """Select the images of a dataset, split by split, class by class, each class by position."""
    return images_in(dataset_id).order_by(Image.split, Image.class_index, Image.position)


def num_images_of(session: Session, dataset_id: str, *, split: str | None = None) -> int:
    """Return how many images a dataset has, or one split of it."""
    query = images_of(dataset_id).with_only_columns(func.count(Image.id)).order_by(None)
    return session.scalar(query if split is None else query.where(Image.split == split)) or 0


class ContentVersion:
    """The hash of a dataset's content: equal for equal files in equal classes and splits, in any order.

    Holds 32 bytes for each image, plus Python's overhead.
    """

    def __init__(self, dataset: Dataset) -> None:
        """Begin without images; the dataset provides the names of the classes."""
        self._names = [entry["name"] for entry in dataset.classes]
        self._hashes: defaultdict[tuple[str, str], list[bytes]] = defaultdict(list)

    def add(self, split: str | None, class_index: int | None, sha256: str) -> None:
        """Add an image: its split, its class, and the SHA-256 of its file in hexadecimal."""
        self._hashes[split or "", self._names[class_index or 0]].append(bytes.fromhex(sha256))

    def hexdigest(self) -> str:
        """Return 64 hexadecimal digits: the SHA-256 over one line `["split","class","sha256"]` an image, sorted."""
        digest = hashlib.sha256()
        for (split, name), hashes in sorted(self._hashes.items()):
            for sha256 in sorted(hashes):
                line = json.dumps((split, name, sha256.hex()), separators=(",", ":"))
                digest.update(line.encode() + b"\n")
        return digest.hexdigest()


def content_version(dataset: Dataset, images: Iterable[tuple[str | None, int | None, str]]) -> str:
    """Return the version of the given images: split, class index and SHA-256 of the file of each."""
    version = ContentVersion(dataset)
    for image in images:
        version.add(*image)
    return version.hexdigest()


def read_version(session: Session, dataset: Dataset) -> str:
    """Return the version of a dataset's current content."""
    columns = images_of(dataset.id).with_only_columns(Image.split, Image.class_index, Image.sha256)
    rows = session.execute(columns.execution_options(yield_per=ROWS_AT_ONCE))
    return content_version(dataset, ((split, index, sha256) for split, index, sha256 in rows))

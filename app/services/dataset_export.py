"""Datasets as archives: one zip of everything, or WebDataset shards. Reads records and files, changes nothing.

An export is of the moment at which it was asked for: the list of its files is read at once, in the calling thread;
no database connection is held while the bytes are sent. What is added meanwhile is not in it; what is deleted
meanwhile ends it early (see `app.storage.archives`).
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from sqlalchemy import func
from sqlalchemy.orm import Session

from app.db.models import Dataset, Image
from app.db.session import Database
from app.errors import Conflict, NotFound
from app.schemas.exports import DatasetVersionRead, ShardRead, ShardsRead
from app.services.dataset_card import COLUMNS, card_text, image_facts, member_name, recipe_text
from app.services.dataset_versions import content_version, images_of, read_version
from app.services.datasets import ACTIVE, find_dataset
from app.storage.archives import Archive as Archive
from app.storage.archives import Member, stored_member, tar_archive, text_member, zip_archive
from app.storage.layout import DataFolder

SPLITS = ("train", "test")
# Rows fetched together; a page of them is all that is held besides the list of members.
_ROWS_AT_ONCE = 1_000


class DatasetExportService:
    """Everything about datasets that leave."""

    def __init__(self, db: Database, folder: DataFolder) -> None:
        """Wire the service; `folder` is the node's data folder."""
        self._db = db
        self._folder = folder

    def version(self, dataset_id: str) -> DatasetVersionRead:
        """Return the version of a dataset's present content.

        Raises:
            NotFound: There is none with this id.
        """
        with self._db.snapshot() as session:
            dataset = find_dataset(session, dataset_id)
            counts = _counts(session, dataset_id, Image.source)
            return DatasetVersionRead(
                version=read_version(session, dataset),
                num_images=sum(counts.values()),
                num_synthetic=counts["synthetic"],
                num_real=counts["real"],
            )

    def archive(self, dataset_id: str) -> Archive:
        """Return a zip of the dataset: images, `metadata.jsonl` of each split, `dataset.json`, `README.md`.

        Raises:
            NotFound: There is none with this id.
            Conflict: Its images are being made.
        """
        with self._db.snapshot() as session:
            dataset = _finished(session, dataset_id)
            members: list[Member] = []
            seen: list[tuple[Any, ...]] = []
            counts: Counter[tuple[str, str]] = Counter()
            for split in SPLITS:
                # Metadata lines are packed as they come: the facts of all images at once would be the largest part.
                metadata = text_member(f"{split}/metadata.jsonl", self._listed(session, dataset, split, members, seen))
                if metadata.num_bytes:
                    members.append(metadata)
            counts.update((split, source) for split, _, _, source in seen)
        version = content_version(dataset, (entry[:3] for entry in seen))
        del seen  # megabytes, while the archive's own list is built
        members.append(text_member("dataset.json", [recipe_text(dataset, version, counts)]))
        members.append(text_member("README.md", [card_text(dataset, version, counts)]))
        return zip_archive(f"{dataset.name}-{version[:12]}", sorted(members, key=lambda member: member.name))

    def shards(self, dataset_id: str, samples_per_shard: int) -> ShardsRead:
        """List the dataset's WebDataset shards of at most so many images.

        Raises:
            NotFound: There is none with this id.
            Conflict: Its images are being made.
        """
        with self._db.snapshot() as session:
            dataset = _finished(session, dataset_id)
            plan = _plan(session, dataset_id, samples_per_shard)
            version = read_version(session, dataset)
        url = f"/datasets/{dataset_id}/shards/{{}}.tar?samples_per_shard={samples_per_shard}"
        shards = [
            ShardRead(index=index, name=f"{name}.tar", url=url.format(index), split=split, num_samples=num_samples)
            for index, (name, split, _, num_samples) in enumerate(plan)
        ]
        return ShardsRead(version=version, samples_per_shard=samples_per_shard, shards=shards)

    def shard(self, dataset_id: str, index: int, samples_per_shard: int) -> Archive:
        """Return one shard as a tar: image, `.json` and `.cls` of a sample have one stem and follow each other.

        A shard holds images of one split, ordered by their hash: mixed over the classes, and the same each time.

        Raises:
            NotFound: There is no such dataset or shard.
            Conflict: Its images are being made.
        """
        with self._db.snapshot() as session:
            dataset = _finished(session, dataset_id)
            plan = _plan(session, dataset_id, samples_per_shard)
            if index >= len(plan):
                raise NotFound("there is no shard of this number")
            name, split, start, num_samples = plan[index]
            query = images_of(dataset_id).where(Image.split == split).order_by(None).order_by(Image.sha256, Image.path)
            rows = session.execute(query.offset(start).limit(num_samples).with_only_columns(*COLUMNS))
            members = [member for row in rows for member in self._sample(dataset, row)]
        return tar_archive(f"{dataset.name}-{name}", members)

    def _listed(
        self, session: Session, dataset: Dataset, split: str, members: list[Member], seen: list[tuple[Any, ...]]
    ) -> Iterator[str]:
        """Give the metadata line of each image of a split, and note its member and what its version follows from."""
        query = images_of(dataset.id).where(Image.split == split).with_only_columns(*COLUMNS)
        for row in session.execute(query.execution_options(yield_per=_ROWS_AT_ONCE)):
            name = member_name(dataset, row.path)
            members.append(self._image(name, row))
            seen.append((row.split, row.class_index, row.sha256, row.source))
            yield json.dumps({"file_name": name.removeprefix(f"{split}/"), **image_facts(dataset, row)}) + "\n"

    def _sample(self, dataset: Dataset, row: Any) -> list[Member]:
        path = PurePosixPath(member_name(dataset, row.path))
        stem = str(path.relative_to(row.split).with_suffix(""))
        return [
            self._image(f"{stem}{path.suffix}", row),
            text_member(f"{stem}.json", [json.dumps(image_facts(dataset, row))]),
            text_member(f"{stem}.cls", [str(row.class_index)]),
        ]

    def _image(self, name: str, row: Any) -> Member:
        return stored_member(self._folder, name, path=row.path, num_bytes=row.num_bytes, sha256=row.sha256)


def _finished(session: Session, dataset_id: str) -> Dataset:
    dataset = find_dataset(session, dataset_id)
    if dataset.status in ACTIVE:
        raise Conflict("the images of this dataset are being made", code="dataset_in_use")
    return dataset


def _counts(session: Session, dataset_id: str, column: Any) -> Counter[str]:
    query = images_of(dataset_id).order_by(None).with_only_columns(column, func.count(Image.id)).group_by(column)
    return Counter({row[0]: row[1] for row in session.execute(query)})


def _plan(session: Session, dataset_id: str, samples_per_shard: int) -> list[tuple[str, str, int, int]]:
    """Return (name, split, first sample, number of samples) of every shard."""
    counts = _counts(session, dataset_id, Image.split)
    return [
        (f"{split}-{number:06d}", split, start, min(samples_per_shard, counts[split] - start))
        for split in SPLITS
        for number, start in enumerate(range(0, counts[split], samples_per_shard))
    ]

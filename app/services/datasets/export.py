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

from app.db.models import ACTIVE_DATASET_STATUSES, IMAGE_SOURCES, Dataset, Image
from app.db.session import Database
from app.error_codes import ErrorCode
from app.errors import Conflict, NotFound
from app.schemas.exports import DatasetVersionRead, ShardRead, ShardsRead
from app.services.datasets.card import COLUMNS, card_text, dataset_root, image_facts, member_name, recipe_text
from app.services.datasets.rows import find_dataset
from app.services.datasets.versions import ROWS_AT_ONCE, ContentVersion, images_of, read_version
from app.services.images.lost_files import refuse_lost_members
from app.storage.archives import Archive as Archive
from app.storage.archives import Listing, Member, stored_member, tar_archive, text_member, zip_archive
from app.storage.layout import DataFolder
from app.storage.soundness import FileChecks

SPLITS = ("train", "test")
RECIPE_NAME = "dataset.json"
# Neither webdataset nor Hugging Face `datasets` takes a file whose name begins and ends so for a part of a sample.
SHARD_RECIPE_NAME = "__dataset.json__"


class DatasetExportService:
    """Everything about datasets that leave."""

    def __init__(self, db: Database, folder: DataFolder, checks: FileChecks) -> None:
        """Wire the service; `folder` is the node's data folder, `checks` knows what lies in it."""
        self._db = db
        self._folder = folder
        self._checks = checks

    def version(self, dataset_id: str) -> DatasetVersionRead:
        """Return the version of a dataset's present content.

        Raises:
            NotFound: There is none with this id.
        """
        with self._db.snapshot() as session:
            dataset = find_dataset(session, dataset_id)
            counts = _counts(session, dataset_id)
            by_source = {name: sum(n for (_, source), n in counts.items() if source == name) for name in IMAGE_SOURCES}
            return DatasetVersionRead(
                version=read_version(session, dataset),
                num_images=counts.total(),
                num_synthetic=by_source["synthetic"],
                num_real=by_source["real"],
            )

    def archive(self, dataset_id: str) -> Archive:
        """Return a zip of the dataset: images, `metadata.jsonl` of each split, `dataset.json`, `README.md`.

        Raises:
            NotFound: There is none with this id.
            Conflict: Its images are being made.
            FileLost: A file of it is gone or damaged.
        """
        with self._db.snapshot() as session:
            dataset = _finished(session, dataset_id)
            listing = Listing(self._folder, dataset_root(dataset))
            content, counts = ContentVersion(dataset), Counter[tuple[str, str]]()
            for split in SPLITS:
                # Metadata lines are packed as they come: the facts of all images at once would be the largest part.
                lines = self._listed(session, dataset, split, listing, content, counts)
                listing.add_text(text_member(f"{split}/metadata.jsonl", lines))
            version = content.settled()
            listing.add_text(text_member(RECIPE_NAME, [recipe_text(dataset, version, counts)]))
        refuse_lost_members(self._db, self._checks, dataset_id, listing)
        listing.add_text(text_member("README.md", [card_text(dataset, version, counts)]))
        return zip_archive(f"{dataset.name}-{version[:12]}", listing)

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

        A shard holds images of one split, ordered by their hash: mixed over the classes, and the same each time. Its
        first file is the recipe of the whole dataset, under a name that loaders pass over.

        Raises:
            NotFound: There is no such dataset or shard.
            Conflict: Its images are being made.
            FileLost: A file of the shard is gone or damaged.
        """
        with self._db.snapshot() as session:
            dataset = _finished(session, dataset_id)
            plan = _plan(session, dataset_id, samples_per_shard)
            if index >= len(plan):
                raise NotFound("There is no shard with this number.")
            name, split, start, num_samples = plan[index]
            query = images_of(dataset_id).where(Image.split == split).order_by(None).order_by(Image.sha256, Image.path)
            rows = session.execute(query.offset(start).limit(num_samples).with_only_columns(*COLUMNS))
            members = [member for row in rows for member in self._sample(dataset, row)]
            recipe = recipe_text(dataset, read_version(session, dataset), _counts(session, dataset_id))
        refuse_lost_members(self._db, self._checks, dataset_id, members)
        return tar_archive(f"{dataset.name}-{name}", [text_member(SHARD_RECIPE_NAME, [recipe]), *members])

    def _listed(
        self,
        session: Session,
        dataset: Dataset,
        split: str,
        listing: Listing,
        content: ContentVersion,
        counts: Counter[tuple[str, str]],
    ) -> Iterator[str]:
        """Give the metadata line of each image of a split, and note its file, its part of the version, its source."""
        query = images_of(dataset.id).where(Image.split == split).with_only_columns(*COLUMNS)
        for row in session.execute(query.execution_options(yield_per=ROWS_AT_ONCE)):
            name = member_name(dataset, row.path)
            listing.add_stored(name, row.num_bytes, row.sha256)
            content.add(row.split, row.class_index, row.sha256)
            counts[row.split, row.source] += 1
            yield json.dumps({"file_name": name.removeprefix(f"{split}/"), **image_facts(dataset, row)}) + "\n"

    def _sample(self, dataset: Dataset, row: Any) -> list[Member]:
        path = PurePosixPath(member_name(dataset, row.path))
        stem = str(path.relative_to(row.split).with_suffix(""))
        return [
            stored_member(
                self._folder, f"{stem}{path.suffix}", path=row.path, num_bytes=row.num_bytes, sha256=row.sha256
            ),
            text_member(f"{stem}.json", [json.dumps(image_facts(dataset, row))]),
            text_member(f"{stem}.cls", [str(row.class_index)]),
        ]


def _finished(session: Session, dataset_id: str) -> Dataset:
    dataset = find_dataset(session, dataset_id, with_texts=True)
    if dataset.status in ACTIVE_DATASET_STATUSES:
        raise Conflict(
            "The images of this dataset are being generated. Wait for its job, or cancel it.",
            code=ErrorCode.DATASET_IN_USE,
        )
    return dataset


def _counts(session: Session, dataset_id: str) -> Counter[tuple[str, str]]:
    """Count images by (split, source)."""
    columns: tuple[Any, ...] = (Image.split, Image.source, func.count(Image.id))
    query = images_of(dataset_id).order_by(None).with_only_columns(*columns).group_by(Image.split, Image.source)
    return Counter({(split, source): num for split, source, num in session.execute(query)})


def _plan(session: Session, dataset_id: str, samples_per_shard: int) -> list[tuple[str, str, int, int]]:
    """Return (name, split, first sample, number of samples) of every shard."""
    counts = _counts(session, dataset_id)
    totals = {name: sum(n for (split, _), n in counts.items() if split == name) for name in SPLITS}
    return [
        (f"{split}-{number:06d}", split, start, min(samples_per_shard, total - start))
        for split, total in totals.items()
        for number, start in enumerate(range(0, total, samples_per_shard))
    ]

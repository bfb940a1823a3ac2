"""The service that exports datasets: zips, WebDataset shards, COCO annotations, Croissant. Changes nothing.

The list of files is read when the export is requested, in the calling thread; no database connection is held while the
bytes are sent. An image added meanwhile is not in the archive; one deleted meanwhile ends the stream early (see
`app.storage.archives`). Imports no HTTP framework. Runs on the threads of the pool for exports, not on the event loop.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from sqlalchemy import func
from sqlalchemy.orm import Session

from app.db.models import ACTIVE_DATASET_STATUSES, IMAGE_SOURCES, Dataset, Image
from app.db.session import Database
from app.error_codes import ErrorCode
from app.errors import Conflict, NotFound
from app.schemas.common import SPLITS, Split
from app.schemas.croissant import CroissantRead
from app.schemas.exports import DatasetVersionRead, ShardRead, ShardsRead
from app.services.datasets.exports.card import (
    COLUMNS,
    ContentCounts,
    card_text,
    dataset_root,
    image_facts,
    member_name,
    recipe_text,
)
from app.services.datasets.exports.coco import COLUMNS as COCO_COLUMNS
from app.services.datasets.exports.coco import coco_lines
from app.services.datasets.exports.croissant import ZipFacts, croissant
from app.services.datasets.exports.webdataset import SHARD_RECIPE_NAME, image_key, plan_shards, sample_members
from app.services.datasets.rows import find_dataset
from app.services.datasets.versions import ROWS_AT_ONCE, ContentVersion, images_of, read_version
from app.services.images.lost_files import refuse_lost_members
from app.storage.archives import Archive as Archive
from app.storage.archives import Listing, tar_archive, text_member, zip_archive
from app.storage.layout import DataFolder
from app.storage.soundness import FileChecks

RECIPE_NAME = "dataset.json"
# Hashes of whole archives that are kept, by their tags: 130 bytes each.
MAX_HASHES = 1_000


class DatasetExportService:
    """Exports datasets."""

    def __init__(self, db: Database, folder: DataFolder, checks: FileChecks) -> None:
        """Wire the service; `folder` is the node's data folder, `checks` verifies its files."""
        self._db = db
        self._folder = folder
        self._checks = checks
        self._hashes: dict[str, str] = {}  # by the tags of archives; two threads may compute one twice

    def version(self, dataset_id: str) -> DatasetVersionRead:
        """Return the version of a dataset's current content.

        Raises:
            NotFound: There is none with this id.
        """
        with self._db.snapshot() as session:
            dataset = find_dataset(session, dataset_id)
            counts = _counts(session, dataset_id)
            by_source = {
                name: sum(n for (_, _, source), n in counts.items() if source == name) for name in IMAGE_SOURCES
            }
            return DatasetVersionRead(
                version=read_version(session, dataset),
                num_images=counts.total(),
                num_synthetic=by_source["synthetic"],
                num_real=by_source["real"],
            )

    def archive(self, dataset_id: str, split: Split | None = None) -> Archive:
        """Return a zip of the dataset: images, `metadata.jsonl` of each split, `dataset.json`, `README.md`.

        Args:
            dataset_id: The dataset.
            split: Only the images of this split, without the card, whose data files are those of every split.

        Raises:
            NotFound: There is none with this id, or it has no images in the split.
            Conflict: Its images are being generated.
            FileLost: A file of the dataset is missing or damaged.
        """
        with self._db.snapshot() as session:
            dataset = _finished(session, dataset_id)
            listing, version, counts = self._listing(session, dataset, SPLITS if split is None else [split])
        refuse_lost_members(self._db, self._checks, dataset_id, listing)
        if split is None:
            listing.add_text(text_member("README.md", [card_text(dataset, version, counts)]))
        part = "" if split is None else f"{split}-"
        return zip_archive(f"{dataset.name}-{part}{version[:12]}", listing)

    def coco(self, dataset_id: str, split: Split | None = None) -> Archive:
        """Return COCO annotations of the dataset, or of one split, as a JSON file.

        Raises:
            NotFound: There is no dataset with this id.
            Conflict: Its images are being generated.
        """
        with self._db.snapshot() as session:
            dataset = _finished(session, dataset_id)
            version = read_version(session, dataset)
            rows = partial(_coco_rows, session, dataset_id, SPLITS if split is None else [split])
            text = text_member("coco.json", coco_lines(dataset, version, rows))
        part = "" if split is None else f"-{split}"
        name = f"{dataset.name}{part}-coco.json"
        return Archive(name, "application/json", text.num_bytes, text.sha256, text.read())

    def croissant(self, dataset_id: str, base_url: str) -> CroissantRead:
        """Return the description of the dataset in Croissant, with the hash of its archive.

        The first call for a content reads all files, at some hundred megabytes a second.

        Args:
            dataset_id: The dataset.
            base_url: The URL of this service without a slash at its end.

        Raises:
            NotFound: There is no dataset with this id.
            Conflict: Its images are being generated.
            FileLost: A file of the dataset is missing or damaged.
        """
        archive = self.archive(dataset_id)
        facts = ZipFacts(archive.num_bytes, self._hash_of(archive))
        with self._db.snapshot() as session:
            dataset = _finished(session, dataset_id)
            return croissant(dataset, read_version(session, dataset), _counts(session, dataset_id), facts, base_url)

    def shards(self, dataset_id: str, samples_per_shard: int) -> ShardsRead:
        """List the dataset's WebDataset shards.

        Args:
            dataset_id: The dataset.
            samples_per_shard: Most images in a shard, >= 1.

        Raises:
            NotFound: There is none with this id.
            Conflict: Its images are being generated.
        """
        with self._db.snapshot() as session:
            dataset = _finished(session, dataset_id)
            plan = plan_shards(_counts(session, dataset_id), samples_per_shard)
            version = read_version(session, dataset)
        url = f"/datasets/{dataset_id}/shards/{{}}.tar?samples_per_shard={samples_per_shard}"
        shards = [
            ShardRead(
                index=index, name=f"{one.name}.tar", url=url.format(index), split=one.split, num_samples=one.num_samples
            )
            for index, one in enumerate(plan)
        ]
        return ShardsRead(
            version=version, samples_per_shard=samples_per_shard, image_key=image_key(dataset), shards=shards
        )

    def shard(self, dataset_id: str, index: int, samples_per_shard: int) -> Archive:
        """Return one shard as a tar; see `app/services/datasets/exports/webdataset.py`.

        Raises:
            NotFound: There is no dataset with this id, or no shard with this index.
            Conflict: Its images are being generated.
            FileLost: A file of the shard is missing or damaged.
        """
        with self._db.snapshot() as session:
            dataset = _finished(session, dataset_id)
            plan = plan_shards(_counts(session, dataset_id), samples_per_shard)
            if index >= len(plan):
                raise NotFound("There is no shard with this number.")
            one = plan[index]
            of_split = images_of(dataset_id).where(Image.split == one.split)
            query = of_split.order_by(None).order_by(Image.sha256, Image.path)
            rows = session.execute(query.offset(one.start).limit(one.num_samples).with_only_columns(*COLUMNS))
            members = [member for row in rows for member in sample_members(self._folder, dataset, row)]
            recipe = recipe_text(dataset, read_version(session, dataset), _counts(session, dataset_id))
        refuse_lost_members(self._db, self._checks, dataset_id, members)
        return tar_archive(f"{dataset.name}-{one.name}", [text_member(SHARD_RECIPE_NAME, [recipe]), *members])

    def _hash_of(self, archive: Archive) -> str:
        """Return the SHA-256 of an archive's bytes, hexadecimal; equal tags have equal bytes."""
        if archive.tag not in self._hashes:
            digest = hashlib.sha256()
            for part in archive.parts:
                digest.update(part)
            while len(self._hashes) >= MAX_HASHES:
                self._hashes.pop(next(iter(self._hashes)), None)
            self._hashes[archive.tag] = digest.hexdigest()
        return self._hashes[archive.tag]

    def _listing(self, session: Session, dataset: Dataset, splits: Sequence[str]) -> tuple[Listing, str, ContentCounts]:
        """Return the members of the splits but for the card, and version and counts of the whole content."""
        listing = Listing(self._folder, dataset_root(dataset))
        content, counts = ContentVersion(dataset), ContentCounts()
        for split in SPLITS:
            lines = self._listed(session, dataset, split, listing if split in splits else None, content, counts)
            # Each metadata line is compressed at once: uncompressed, they would take the most memory.
            metadata = text_member(f"{split}/metadata.jsonl", lines)
            if split in splits:
                listing.add_text(metadata)
        if len(splits) == 1 and not any(split in splits for split, _, _ in counts):
            raise NotFound("The dataset has no images in this split.")
        version = content.hexdigest()
        listing.add_text(text_member(RECIPE_NAME, [recipe_text(dataset, version, counts)]))
        return listing, version, counts

    def _listed(
        self,
        session: Session,
        dataset: Dataset,
        split: str,
        listing: Listing | None,
        content: ContentVersion,
        counts: ContentCounts,
    ) -> Iterator[str]:
        """Yield the metadata line of each image of a split, and add the image to listing, version and counts.

        Without a listing, the image is in version and counts alone.
        """
        query = images_of(dataset.id).where(Image.split == split).with_only_columns(*COLUMNS)
        for row in session.execute(query.execution_options(yield_per=ROWS_AT_ONCE)):
            content.add(row.split, row.class_index, row.sha256)
            counts[row.split, row.class_index, row.source] += 1
            if listing is None:
                continue
            name = member_name(dataset, row.path)
            listing.add_stored(name, row.num_bytes, row.sha256)
            yield json.dumps({"file_name": name.removeprefix(f"{split}/"), **image_facts(dataset, row)}) + "\n"


def _finished(session: Session, dataset_id: str) -> Dataset:
    dataset = find_dataset(session, dataset_id, with_texts=True)
    if dataset.status in ACTIVE_DATASET_STATUSES:
        raise Conflict(
            "The images of this dataset are being generated. Wait for its job, or cancel it.",
            code=ErrorCode.DATASET_IN_USE,
        )
    return dataset


def _counts(session: Session, dataset_id: str) -> ContentCounts:
    columns: tuple[Any, ...] = (Image.split, Image.class_index, Image.source)
    query = images_of(dataset_id).order_by(None).with_only_columns(*columns, func.count(Image.id)).group_by(*columns)
    return Counter({(row.split, row.class_index, row.source): row[-1] for row in session.execute(query)})


def _coco_rows(session: Session, dataset_id: str, splits: Sequence[str]) -> Iterable[Any]:
    for split in splits:
        query = images_of(dataset_id).where(Image.split == split).with_only_columns(*COCO_COLUMNS)
        yield from session.execute(query.execution_options(yield_per=ROWS_AT_ONCE))

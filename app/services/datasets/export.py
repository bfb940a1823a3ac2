"""The service that exports datasets as archives: one zip of everything, or WebDataset shards. Changes nothing.

The list of files is read when the export is requested, in the calling thread; no database connection is held while the
bytes are sent. An image added meanwhile is not in the archive; one deleted meanwhile ends the stream early (see
`app.storage.archives`). Imports no HTTP framework. Runs on the threads of the pool for exports, not on the event loop.
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
from app.schemas.common import SPLITS
from app.schemas.exports import DatasetVersionRead, ShardRead, ShardsRead
from app.services.datasets.card import COLUMNS, card_text, dataset_root, image_facts, member_name, recipe_text
from app.services.datasets.rows import find_dataset
from app.services.datasets.versions import ROWS_AT_ONCE, ContentVersion, images_of, read_version
from app.services.images.lost_files import refuse_lost_members
from app.storage.archives import Archive as Archive
from app.storage.archives import Listing, Member, stored_member, tar_archive, text_member, zip_archive
from app.storage.layout import DataFolder
from app.storage.soundness import FileChecks

RECIPE_NAME = "dataset.json"
# Both webdataset and Hugging Face `datasets` skip a file whose name begins and ends with two underscores.
SHARD_RECIPE_NAME = "__dataset.json__"


class DatasetExportService:
    """Exports datasets."""

    def __init__(self, db: Database, folder: DataFolder, checks: FileChecks) -> None:
        """Wire the service; `folder` is the node's data folder, `checks` verifies its files."""
        self._db = db
        self._folder = folder
        self._checks = checks

    def version(self, dataset_id: str) -> DatasetVersionRead:
        """Return the version of a dataset's current content.

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
            Conflict: Its images are being generated.
            FileLost: A file of the dataset is missing or damaged.
        """
        with self._db.snapshot() as session:
            dataset = _finished(session, dataset_id)
            listing = Listing(self._folder, dataset_root(dataset))
            content, counts = ContentVersion(dataset), Counter[tuple[str, str]]()
            for split in SPLITS:
                # Each metadata line is compressed at once: uncompressed, they would take the most memory.
                lines = self._listed(session, dataset, split, listing, content, counts)
                listing.add_text(text_member(f"{split}/metadata.jsonl", lines))
            version = content.hexdigest()
            listing.add_text(text_member(RECIPE_NAME, [recipe_text(dataset, version, counts)]))
        refuse_lost_members(self._db, self._checks, dataset_id, listing)
        listing.add_text(text_member("README.md", [card_text(dataset, version, counts)]))
        return zip_archive(f"{dataset.name}-{version[:12]}", listing)

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
            plan = _plan(session, dataset_id, samples_per_shard)
            version = read_version(session, dataset)
        url = f"/datasets/{dataset_id}/shards/{{}}.tar?samples_per_shard={samples_per_shard}"
        shards = [
            ShardRead(index=index, name=f"{name}.tar", url=url.format(index), split=split, num_samples=num_samples)
            for index, (name, split, _, num_samples) in enumerate(plan)
        ]
        return ShardsRead(version=version, samples_per_shard=samples_per_shard, shards=shards)

    def shard(self, dataset_id: str, index: int, samples_per_shard: int) -> Archive:
        """Return one shard as a tar: image, `.json` and `.cls` of a sample have the same stem and follow each other.

        A shard contains images of one split in the order of their hashes, which mixes the classes and is the same each
        time. Its first file is the recipe of the whole dataset, under a name that loaders skip.

        Raises:
            NotFound: There is no dataset with this id, or no shard with this index.
            Conflict: Its images are being generated.
            FileLost: A file of the shard is missing or damaged.
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
        """Yield the metadata line of each image of a split, and add the image to listing, version and counts."""
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

"""WebDataset shards of a dataset: which images are in each, and the files of a sample.

A shard contains images of one split in the order of their hashes, which mixes the classes and is the same each time.
Image, `.json` and `.cls` of a sample have the same stem and follow each other. The first file of a shard is the recipe
of the whole dataset, under a name that loaders skip. All images have one ending, whatever their formats: loaders take
it for the name of the sample's member, and read a format from the content.

Opens no session and no file. Any thread.
"""

import json
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from app.db.models import Dataset
from app.schemas.common import SPLITS
from app.services.datasets.exports.card import ContentCounts, image_facts, member_name
from app.storage.archives import Member, stored_member, text_member
from app.storage.layout import DataFolder

# Both webdataset and Hugging Face `datasets` skip a file whose name begins and ends with two underscores.
SHARD_RECIPE_NAME = "__dataset.json__"


class Shard(NamedTuple):
    """A shard: `num_samples` images of a split, from the image `start` on, in the order of their hashes."""

    name: str
    split: str
    start: int
    num_samples: int


def plan_shards(counts: ContentCounts, samples_per_shard: int) -> list[Shard]:
    """Return the shards of a dataset with so many images; all but the last of a split are full."""
    totals = {name: sum(n for (split, _, _), n in counts.items() if split == name) for name in SPLITS}
    return [
        Shard(f"{split}-{number:06d}", split, start, min(samples_per_shard, total - start))
        for split, total in totals.items()
        for number, start in enumerate(range(0, total, samples_per_shard))
    ]


def image_key(dataset: Dataset) -> str:
    """Return the ending of every image in the dataset's shards."""
    return str(dataset.generation.get("output_format", "png"))


def sample_members(folder: DataFolder, dataset: Dataset, row: Any) -> list[Member]:
    """Return the files of the sample of one image; `row` has the columns of `card.COLUMNS`."""
    path, key = PurePosixPath(member_name(dataset, row.path)), image_key(dataset)
    stem, own = str(path.relative_to(row.split).with_suffix("")), path.suffix.removeprefix(".")
    if own != key:  # two files may differ in nothing but their format
        stem = f"{stem}-{own}"
    return [
        stored_member(folder, f"{stem}.{key}", path=row.path, num_bytes=row.num_bytes, sha256=row.sha256),
        text_member(f"{stem}.json", [json.dumps(image_facts(dataset, row))]),
        text_member(f"{stem}.cls", [str(row.class_index)]),
    ]

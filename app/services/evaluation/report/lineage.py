"""What the images of a report's dataset were made from: prompts, seeds, generators, and counts by class.

Reads the columns of all images in one pass and keeps a bounded part: 100,000 images take about two seconds. Imports no
HTTP framework and no torch. Functions run inside the caller's session, on a pool thread.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from app.db.models import Dataset, Image, TrainedModel
from app.schemas.generations import WarningRead
from app.schemas.train_reports import MAX_PROMPTS, MAX_SEEDS, ClassImages, PromptLineage
from app.services.datasets.records import images_in
from app.services.datasets.versions import ROWS_AT_ONCE, ContentVersion

# Generators that are named; a dataset that was extended after a change of packs has two.
_MAX_GENERATORS = 5


@dataclass(frozen=True, slots=True)
class Origin:
    """What the dataset's records say now.

    Attributes:
        prompts: At most `MAX_PROMPTS`, class by class.
        num_prompts: The number of different prompts of all classes.
        generator: The packs and revisions that generated images; None if none did.
        classes: The images of each class of the dataset.
        warnings: If the dataset is not what the model was trained on any more.
    """

    prompts: list[PromptLineage] = field(default_factory=list)
    num_prompts: int = 0
    generator: str | None = None
    classes: list[ClassImages] = field(default_factory=list)
    warnings: list[WarningRead] = field(default_factory=list)


def read_origin(session: Session, dataset: Dataset | None, model: TrainedModel) -> Origin:
    """Return what the records say of the images that a model was trained on; `dataset` is None if it was deleted."""
    trained = model.lineage.get("dataset") or {}
    if dataset is None:
        was_generated = trained.get("num_real") is None or trained.get("num_real") != trained.get("num_images")
        detail = "The dataset was deleted; its prompts, seeds and images are not known any more."
        return Origin(
            generator="not known: the dataset was deleted" if was_generated else None,
            warnings=[WarningRead(code="dataset_deleted", detail=detail)],
        )
    version, prompts = ContentVersion(dataset), _Prompts([entry["name"] for entry in dataset.classes])
    counts: Counter[tuple[int, str]] = Counter()
    for row in _images(session, dataset.id):
        version.add(row.split, row.class_index, row.sha256)
        counts[row.class_index, row.split] += 1
        if row.source == "real":
            counts[row.class_index, "real"] += 1
        else:
            prompts.add(row)
    return Origin(
        prompts=prompts.read(),
        num_prompts=len(prompts.different),
        generator=", ".join(sorted(prompts.generators)) or None,
        classes=[
            ClassImages(
                class_name=entry["name"],
                num_train=counts[index, "train"],
                num_validation=counts[index, "validation"],
                num_test=counts[index, "test"],
                num_real=counts[index, "real"],
            )
            for index, entry in enumerate(dataset.classes)
        ],
        warnings=_changes(trained.get("version"), version.hexdigest()),
    )


class _Prompts:
    """The prompts of the images seen so far."""

    def __init__(self, names: Sequence[str]) -> None:
        self.different: set[bytes] = set()  # digests, because a dataset may have 100,000 long prompts
        self.generators: set[str] = set()
        self._names = names
        self._listed: dict[bytes, tuple[int, str]] = {}
        self._counts: Counter[bytes] = Counter()
        self._seeds: defaultdict[bytes, list[int]] = defaultdict(list)

    def add(self, row: Any) -> None:
        """Add a generated image."""
        key = hashlib.sha256(f"{row.class_index}:{row.prompt}".encode()).digest()[:16]
        self.different.add(key)
        if len(self.generators) < _MAX_GENERATORS and row.pack:
            self.generators.add(f"{row.pack} {(row.pack_revision or '')[:12]}".strip())
        if key not in self._listed:
            if len(self._listed) == MAX_PROMPTS:
                return
            self._listed[key] = (row.class_index, row.prompt or "")
        self._counts[key] += 1
        seeds = self._seeds[key]
        if row.seed is not None and len(seeds) < MAX_SEEDS:
            seeds.append(row.seed)

    def read(self) -> list[PromptLineage]:
        """Return the listed prompts, in the order of their first images."""
        return [
            PromptLineage(
                class_name=self._names[index], prompt=prompt, num_images=self._counts[key], seeds=self._seeds[key]
            )
            for key, (index, prompt) in self._listed.items()
        ]


def _images(session: Session, dataset_id: str) -> Iterator[Any]:
    """Yield the images class by class, those of training first."""
    lineage = (Image.lineage[name].as_string().label(name) for name in ("prompt", "pack", "pack_revision"))
    columns: tuple[Any, ...] = (Image.split, Image.class_index, Image.sha256, Image.source, Image.seed)
    query = images_in(dataset_id).with_only_columns(*columns, *lineage)
    query = query.order_by(Image.class_index, Image.split != "train", Image.split, Image.position)
    yield from session.execute(query.execution_options(yield_per=ROWS_AT_ONCE))


def _changes(version: str | None, version_now: str) -> list[WarningRead]:
    if version is None or version == version_now:
        return []
    detail = "The dataset was changed after the training; prompts and seeds are those that it has now."
    return [WarningRead(code="dataset_changed", detail=detail)]

"""What the images of a report's dataset were made from: prompts, seeds, generators, and counts by class.

All queries return a bounded number of rows. Imports no HTTP framework and no torch. Functions run inside the caller's
session, on a pool thread: an order of 100,000 images by prompt takes about a second.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Select, String, cast, func, select
from sqlalchemy.orm import Session

from app.db.models import Dataset, Image, TrainedModel
from app.schemas.generations import WarningRead
from app.schemas.train_reports import MAX_PROMPTS, MAX_SEEDS, ClassImages, PromptLineage
from app.services.datasets.records import kept_images
from app.services.datasets.versions import read_version

# Generators that are named; a dataset that was extended after a change of packs has two.
_MAX_GENERATORS = 5


@dataclass(frozen=True, slots=True)
class Origin:
    """What the dataset's records say now.

    Attributes:
        prompts: At most `MAX_PROMPTS`, by class.
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
    if dataset is None:
        trained = model.lineage.get("dataset") or {}
        was_generated = trained.get("num_real") is None or trained.get("num_real") != trained.get("num_images")
        detail = "The dataset was deleted; its prompts, seeds and images are not known any more."
        return Origin(
            generator="not known: the dataset was deleted" if was_generated else None,
            warnings=[WarningRead(code="dataset_deleted", detail=detail)],
        )
    names = [entry["name"] for entry in dataset.classes]
    generated = kept_images(dataset.id).where(Image.source == "synthetic")
    return Origin(
        prompts=_prompts(session, generated, names),
        num_prompts=_num_prompts(session, generated),
        generator=_generator(session, generated),
        classes=_class_images(session, dataset.id, names),
        warnings=_changes(session, dataset, model),
    )


def _prompts(session: Session, generated: Select[Any], names: Sequence[str]) -> list[PromptLineage]:
    prompt = Image.lineage["prompt"].as_string()
    place = (Image.class_index, prompt)
    ranked = generated.with_only_columns(
        Image.class_index.label("class_index"),
        prompt.label("prompt"),
        Image.seed.label("seed"),
        func.dense_rank().over(order_by=place).label("prompt_rank"),
        func.row_number().over(partition_by=place, order_by=(Image.split, Image.position)).label("image_rank"),
        func.count().over(partition_by=place).label("num_images"),
    ).subquery()
    listed = select(ranked).where(ranked.c.prompt_rank <= MAX_PROMPTS, ranked.c.image_rank <= MAX_SEEDS)
    found: dict[int, PromptLineage] = {}
    for row in session.execute(listed.order_by(ranked.c.prompt_rank, ranked.c.image_rank)):
        if row.prompt_rank not in found:
            found[row.prompt_rank] = PromptLineage(
                class_name=names[row.class_index], prompt=row.prompt or "", num_images=row.num_images, seeds=[]
            )
        if row.seed is not None:
            found[row.prompt_rank].seeds.append(row.seed)
    return list(found.values())


def _num_prompts(session: Session, generated: Select[Any]) -> int:
    prompt = Image.lineage["prompt"].as_string()
    different = generated.with_only_columns(Image.class_index, prompt.label("prompt")).distinct().subquery()
    return session.scalar(select(func.count()).select_from(different)) or 0


def _generator(session: Session, generated: Select[Any]) -> str | None:
    pack, revision = (cast(Image.lineage[name].as_string(), String).label(name) for name in ("pack", "pack_revision"))
    query = generated.with_only_columns(pack, revision).distinct().order_by(pack, revision).limit(_MAX_GENERATORS)
    named = [f"{row.pack} {(row.pack_revision or '')[:12]}".strip() for row in session.execute(query)]
    return ", ".join(named) or None


def _class_images(session: Session, dataset_id: str, names: Sequence[str]) -> list[ClassImages]:
    columns = (Image.class_index, Image.split, Image.source)
    query = kept_images(dataset_id).with_only_columns(*columns, func.count().label("num")).group_by(*columns)
    counted = [ClassImages(class_name=name, num_train=0, num_validation=0, num_test=0, num_real=0) for name in names]
    for row in session.execute(query):
        one, split = counted[row.class_index], f"num_{row.split}"
        setattr(one, split, getattr(one, split) + row.num)
        one.num_real += row.num if row.source == "real" else 0
    return counted


def _changes(session: Session, dataset: Dataset, model: TrainedModel) -> list[WarningRead]:
    version = (model.lineage.get("dataset") or {}).get("version")
    if version is None or version == read_version(session, dataset):
        return []
    detail = "The dataset was changed after the training; prompts and seeds are those that it has now."
    return [WarningRead(code="dataset_changed", detail=detail)]

"""A dataset as a row and as its clients see it; whoever wants a dataset's images asks here which are its own."""

import secrets
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, case, func, select
from sqlalchemy.orm import Session

from app.db.base import new_id
from app.db.models import Dataset, DatasetTexts, Image
from app.modelpacks.pack import ModelPack
from app.schemas.datasets import (
    ClipFilter,
    DatasetClassRead,
    DatasetCreate,
    DatasetRead,
    MissingPlace,
    RecipeSettings,
)
from app.schemas.generations import ModelRef
from app.schemas.jobs import Progress
from app.services.datasets.presets import with_preset
from app.services.datasets.recipe import ATTEMPTS, FILTER_ATTEMPTS, NOTHING_MADE, Made
from app.services.images.spec import SizeRules, resolve_settings
from app.storage.layout import class_folders


def kept_images(dataset_id: str) -> Select[Image]:
    """Select the images that a dataset consists of: not those that its filter rejected."""
    return select(Image).where(Image.dataset_id == dataset_id, Image.decision == "kept")


def num_to_make(dataset: Dataset, made: Made = NOTHING_MADE) -> int:
    """Return how many images a dataset's job is to make, behind those that are made."""
    each = dataset.train_per_class - made.train + dataset.test_per_class - made.test
    return len(dataset.classes) * each


def new_dataset(request: DatasetCreate, sizes: SizeRules, pack: ModelPack, *, job_id: str | None) -> Dataset:
    """Return the row of a request without faults, every value settled; it is in no session yet."""
    settled = with_preset(request)
    return Dataset(
        id=new_id(),
        name=settled.name,
        status="queued",
        seed=settled.seed if settled.seed is not None else secrets.randbelow(2**32),
        classes=_classes(settled),
        train_per_class=settled.train_per_class,
        test_per_class=settled.test_per_class,
        generation=resolve_settings(settled.generation, sizes),
        recipe=_recipe(settled),
        job_id=job_id,
        pack=pack.name,
        pack_revision=pack.revision,
        texts=DatasetTexts(
            classes=[entry.model_dump(include={"prompts", "negative_prompt"}) for entry in settled.classes],
            variables=settled.variables,
        ),
    )


def read_datasets(session: Session, datasets: Sequence[Dataset]) -> list[DatasetRead]:
    """Return datasets as their clients see them, in the same order."""
    ids = [dataset.id for dataset in datasets]
    reserved = case((Image.split == "train", Dataset.train_per_class), else_=Dataset.test_per_class)
    columns = (Image.dataset_id, Image.decision, Image.split, Image.class_index, Image.position < reserved)
    grouped = select(*columns, func.count()).join(Dataset, Image.dataset_id == Dataset.id)
    counts: Counter[tuple[Any, ...]] = Counter()
    for dataset_id, decision, split, class_index, is_place, count in session.execute(
        grouped.where(Image.dataset_id.in_(ids)).group_by(*columns)
    ):
        counts[dataset_id, decision, split, class_index] += count
        counts[dataset_id, decision] += count
        counts[dataset_id, decision, "in a place"] += count if is_place else 0
    return [_dataset_read(dataset, counts) for dataset in datasets]


def settings_of(dataset: Dataset) -> dict[str, Any]:
    """Return the fields of `SettledSettings`; a dataset from before there were recipes has the plain ones."""
    settled: dict[str, Any] = dataset.recipe or {}
    filter_settings = settled.get("filter")
    return {
        "seed": dataset.seed,
        "train_per_class": dataset.train_per_class,
        "test_per_class": dataset.test_per_class,
        "generation": RecipeSettings(**dataset.generation),
        "combine": settled.get("combine", "cartesian"),
        "filter": ClipFilter(**filter_settings) if filter_settings else None,
        "max_attempts": settled.get("max_attempts", ATTEMPTS),
    }


def preset_of(dataset: Dataset) -> str | None:
    """Return the preset that a dataset was asked for with."""
    preset: str | None = (dataset.recipe or {}).get("preset")
    return preset


def _classes(settled: DatasetCreate) -> list[dict[str, Any]]:
    folders = class_folders([entry.name for entry in settled.classes])
    return [
        {
            "name": entry.name,
            "folder": folder,
            "label": entry.label or entry.name,
            "num_prompts": len(entry.prompts),
        }
        for entry, folder in zip(settled.classes, folders, strict=True)
    ]


def _recipe(settled: DatasetCreate) -> dict[str, Any]:
    threshold = None
    if settled.filter is not None:
        given = settled.filter.threshold
        threshold = 1 / len(settled.classes) if given is None else given
    attempts = FILTER_ATTEMPTS if settled.filter else ATTEMPTS
    return {
        "preset": settled.preset,
        "combine": settled.combine,
        "filter": None if threshold is None else {"threshold": threshold},
        "max_attempts": settled.max_attempts or attempts,
    }


def _dataset_read(dataset: Dataset, counts: Counter[tuple[Any, ...]]) -> DatasetRead:
    classes = [
        DatasetClassRead(
            **{**entry, "label": entry.get("label") or entry["name"]},
            num_train=counts[dataset.id, "kept", "train", index],
            num_test=counts[dataset.id, "kept", "test", index],
        )
        for index, entry in enumerate(dataset.classes)
    ]
    pack = ModelRef(id=None, name=dataset.pack, revision=dataset.pack_revision or "") if dataset.pack else None
    return DatasetRead(
        **settings_of(dataset),
        preset=preset_of(dataset),
        id=dataset.id,
        name=dataset.name,
        created_at=dataset.created_at,
        status=dataset.status,
        classes=classes,
        model=pack,
        num_images=counts[dataset.id, "kept"],
        num_rejected=counts[dataset.id, "rejected"],
        missing=[MissingPlace(**place) for place in dataset.missing or []],
        progress=Progress(done=counts[dataset.id, "kept", "in a place"], total=num_to_make(dataset), unit="images"),
        job_id=dataset.job_id,
    )

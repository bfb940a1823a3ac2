"""Conversions between the row of a dataset and its API models, and the query for a dataset's images.

Imports no storage of files and no engine. Functions run inside the caller's session, on the caller's thread.
"""

import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from sqlalchemy import ColumnElement, Select, case, func, select
from sqlalchemy.orm import Session

from app.db.base import new_id
from app.db.models import Dataset, DatasetTexts, Image
from app.image_spec import ImageSpec
from app.modelpacks.pack import ModelPack
from app.schemas.common import SPLITS
from app.schemas.datasets import (
    DatasetClassRead,
    DatasetCreate,
    DatasetRead,
    DatasetRecipeRead,
    MissingPlace,
    RecipeClassRead,
)
from app.schemas.generations import ModelRef
from app.schemas.progress import Progress
from app.schemas.recipes import ClipFilter, RecipeSettings
from app.services.datasets.recipes.presets import with_preset
from app.services.datasets.recipes.recipe import (
    ATTEMPTS,
    FILTER_ATTEMPTS,
    GUIDANCE_STEPS,
    NO_OFFSETS,
    Offsets,
    per_class,
)
from app.services.images.spec import SizeRules, resolve_settings
from app.storage.class_folders import class_folders


def kept_images(dataset_id: str) -> Select[Image]:
    """Select the images of a dataset that its filter did not reject."""
    return select(Image).where(Image.dataset_id == dataset_id, Image.decision == "kept")


def num_to_make(dataset: Dataset, offsets: Offsets = NO_OFFSETS) -> int:
    """Return the number of slots of a dataset behind the offsets: what a job has to generate."""
    return len(dataset.classes) * sum(per_class(dataset, split) - offsets.of(split) for split in SPLITS)


def num_reserved(dataset: Dataset | type[Dataset]) -> ColumnElement[int]:
    """Return the number of slots of an image's class and split, of one dataset or of the one that is joined."""
    return case(
        (Image.split == "train", dataset.train_per_class),
        (Image.split == "validation", dataset.validation_per_class),
        else_=dataset.test_per_class,
    )


def pixel_steps(dataset: Dataset, num_images: int) -> int:
    """Return the work of drawing so many images of a dataset, see `ImageSpec.pixel_steps`; the mean, of ranges.

    Images that a filter rejects and that are drawn again do not count.
    """
    return round(num_images * mean_pixel_steps(dataset.generation))


def mean_pixel_steps(generation: Mapping[str, Any]) -> float:
    """Return the mean `ImageSpec.pixel_steps` of a dataset's settings, of which guidance and steps may be ranges."""
    return _mean(generation, lambda spec: spec.pixel_steps)


def mean_row_steps(generation: Mapping[str, Any]) -> float:
    """Return the mean UNet rows of all steps of an image of a dataset, see `ImageSpec.step_rows`."""
    return _mean(generation, lambda spec: sum(spec.step_rows))


def _mean(generation: Mapping[str, Any], cost: Callable[[ImageSpec], int]) -> float:
    steps = generation["num_inference_steps"]
    numbers = range(steps["min"], steps["max"] + 1) if isinstance(steps, Mapping) else [steps]
    guided_share = guided_part(generation["guidance_scale"])
    mean = 0.0
    for share, scale in ((guided_share, 2.0), (1 - guided_share, 1.0)):
        fixed = {**generation, "prompt": "", "guidance_scale": scale}
        mean += share * fmean(cost(ImageSpec.from_json({**fixed, "num_inference_steps": number})) for number in numbers)
    return mean


def guided_part(guidance: float | Mapping[str, float]) -> float:
    """Return the share of a dataset's guidance scales, a number or a range, that are above 1: those of two rows."""
    if not isinstance(guidance, Mapping):
        return float(guidance > 1)
    first, last = (round(guidance[end] * GUIDANCE_STEPS) for end in ("min", "max"))
    return max(0, last - max(first - 1, GUIDANCE_STEPS)) / (last - first + 1)


def new_dataset(
    request: DatasetCreate, sizes: SizeRules, pack: ModelPack, *, job_id: str | None, key_id: str | None = None
) -> Dataset:
    """Return the row of a validated request, with every default resolved; it is in no session yet."""
    resolved = with_preset(request, pack=pack.name)
    return Dataset(
        id=new_id(),
        key_id=key_id,
        name=resolved.name,
        status="queued",
        seed=resolved.seed if resolved.seed is not None else secrets.randbelow(2**32),
        classes=_classes(resolved),
        train_per_class=resolved.train_per_class,
        validation_per_class=resolved.validation_per_class,
        test_per_class=resolved.test_per_class,
        generation=resolve_settings(resolved.generation, sizes),
        recipe=_recipe(resolved),
        job_id=job_id,
        pack=pack.name,
        pack_revision=pack.revision,
        texts=DatasetTexts(
            classes=[entry.model_dump(include={"prompts", "negative_prompt"}) for entry in resolved.classes],
            variables=resolved.variables,
        ),
    )


def read_datasets(session: Session, datasets: Sequence[Dataset]) -> list[DatasetRead]:
    """Return the API models of datasets, in the same order."""
    ids = [dataset.id for dataset in datasets]
    is_in_slot = Image.position < num_reserved(Dataset)
    columns = (Image.dataset_id, Image.decision, Image.split, Image.class_index, is_in_slot)
    grouped = select(*columns, func.count()).join(Dataset, Image.dataset_id == Dataset.id)
    counts: Counter[tuple[Any, ...]] = Counter()
    for dataset_id, decision, split, class_index, fills_slot, count in session.execute(
        grouped.where(Image.dataset_id.in_(ids)).group_by(*columns)
    ):
        counts[dataset_id, decision, split, class_index] += count
        counts[dataset_id, decision] += count
        counts[dataset_id, decision, "in a slot"] += count if fills_slot else 0
    return [_dataset_read(dataset, counts) for dataset in datasets]


def settings_of(dataset: Dataset) -> dict[str, Any]:
    """Return the fields of `SettledSettings`; a dataset from before recipes existed gets the defaults."""
    resolved: dict[str, Any] = dataset.recipe or {}
    filter_settings = resolved.get("filter")
    return {
        "seed": dataset.seed,
        "train_per_class": dataset.train_per_class,
        "validation_per_class": per_class(dataset, "validation"),
        "test_per_class": dataset.test_per_class,
        "generation": RecipeSettings(**dataset.generation),
        "combine": resolved.get("combine", "cartesian"),
        "filter": ClipFilter(**filter_settings) if filter_settings else None,
        "max_attempts": resolved.get("max_attempts", ATTEMPTS),
    }


def recipe_classes(dataset: Dataset) -> list[RecipeClassRead]:
    """Return the classes of a dataset that was loaded with its texts."""
    return [
        RecipeClassRead(name=entry["name"], label=entry.get("label") or entry["name"], **texts)
        for entry, texts in zip(dataset.classes, dataset.texts.classes, strict=True)
    ]


def recipe_read(dataset: Dataset) -> DatasetRecipeRead:
    """Return the body of `POST /datasets` that gives the same images.

    The dataset must be loaded with its texts, which may have megabytes. The body contains the values of a preset and
    not its name, because a later release may change the values.
    """
    classes = recipe_classes(dataset)
    if dataset.recipe is None:  # from before recipes existed: braces are plain text
        for entry in classes:
            entry.prompts = [prompt.replace("{", "{{").replace("}", "}}") for prompt in entry.prompts]
    variables: Mapping[str, Any] = dataset.texts.variables
    return DatasetRecipeRead(**settings_of(dataset), name=dataset.name, classes=classes, variables=dict(variables))


def preset_of(dataset: Dataset) -> str | None:
    """Return the preset that the dataset's request named."""
    preset: str | None = (dataset.recipe or {}).get("preset")
    return preset


def _classes(resolved: DatasetCreate) -> list[dict[str, Any]]:
    folders = class_folders([entry.name for entry in resolved.classes])
    return [
        {
            "name": entry.name,
            "folder": folder,
            "label": entry.label or entry.name,
            "num_prompts": len(entry.prompts),
        }
        for entry, folder in zip(resolved.classes, folders, strict=True)
    ]


def _recipe(resolved: DatasetCreate) -> dict[str, Any]:
    threshold = None
    if resolved.filter is not None:
        given = resolved.filter.threshold
        threshold = 1 / len(resolved.classes) if given is None else given
    attempts = FILTER_ATTEMPTS if resolved.filter else ATTEMPTS
    return {
        "preset": resolved.preset,
        "combine": resolved.combine,
        "filter": None if threshold is None else {"threshold": threshold},
        "max_attempts": resolved.max_attempts or attempts,
    }


def _dataset_read(dataset: Dataset, counts: Counter[tuple[Any, ...]]) -> DatasetRead:
    classes = [
        DatasetClassRead(
            **{**entry, "label": entry.get("label") or entry["name"]},
            num_train=counts[dataset.id, "kept", "train", index],
            num_validation=counts[dataset.id, "kept", "validation", index],
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
        progress=Progress(done=counts[dataset.id, "kept", "in a slot"], total=num_to_make(dataset), unit="images"),
        job_id=dataset.job_id,
    )

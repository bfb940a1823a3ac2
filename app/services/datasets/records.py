"""Conversions between the row of a dataset and its API models, and the query for a dataset's images.

Imports no storage of files and no engine. Functions run inside the caller's session, on the caller's thread.
"""

import functools
import json
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from sqlalchemy import ColumnElement, Select, case, func, select
from sqlalchemy.orm import Session

from app.db.base import new_id
from app.db.models import Dataset, DatasetTexts, Image
from app.image_spec import DrawnBy, ImageSpec
from app.modelpacks.pack import ModelPack
from app.schemas.common import SPLITS
from app.schemas.datasets import (
    DatasetClass,
    DatasetClassRead,
    DatasetCreate,
    DatasetRead,
    DatasetRecipeRead,
    MissingPlace,
    RecipeClassRead,
    ReviewCounts,
)
from app.schemas.generations import ModelRef
from app.schemas.progress import Progress
from app.schemas.recipes import DEFAULT_SHOT_STRENGTH, ClipFilter, RecipeSettings, StrengthRange
from app.services.datasets.recipes.presets import with_preset
from app.services.datasets.recipes.recipe import (
    ATTEMPTS,
    FILTER_ATTEMPTS,
    GUIDANCE_STEPS,
    NO_OFFSETS,
    Offsets,
    per_class,
    strengths_of,
)
from app.services.images.spec import SizeRules, resolve_settings
from app.storage.class_folders import class_folders

NO_SHOTS: Mapping[str, str] = {}


def kept_images(dataset_id: str) -> Select[Image]:
    """Select the images of a dataset that its filter did not reject."""
    return select(Image).where(Image.dataset_id == dataset_id, Image.decision == "kept")


def images_in(dataset_id: str) -> Select[Image]:
    """Select the images that belong to a dataset's content: kept by its filter, and not rejected by a person.

    An image that a person rejected keeps its slot, so that no job makes another in its place.
    """
    return kept_images(dataset_id).where(Image.review.is_distinct_from("rejected"))


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


def shot_share(dataset: Dataset, offsets: Offsets = NO_OFFSETS) -> float:
    """Return which part of the slots behind the offsets begins with a shot, 0 ... 1."""
    num_classes = sum(entry.get("num_shots", 0) > 0 for entry in dataset.classes)
    num_slots = num_to_make(dataset, offsets)
    return num_classes * (dataset.train_per_class - offsets.train) / num_slots if num_slots else 0.0


def pixel_steps(dataset: Dataset, offsets: Offsets = NO_OFFSETS) -> int:
    """Return the work of the slots behind the offsets, see `ImageSpec.pixel_steps`; the mean, of ranges.

    Images that a filter rejects and that are drawn again do not count.
    """
    mean = _mean(json.dumps(dataset.generation), shot_share(dataset, offsets), _pixel_steps)
    return round(num_to_make(dataset, offsets) * mean)


def mean_row_steps(generation: Mapping[str, Any], shot_share: float) -> float:
    """Return the mean UNet rows of all steps of an image, see `ImageSpec.step_rows`.

    Args:
        generation: The settings of a dataset's images, of which guidance, steps and strength may be ranges.
        shot_share: Which part of the images begins with a picture, at the settings' strength, 0 ... 1.
    """
    return _mean(json.dumps(generation), shot_share, _row_steps)


def mean_rows_at_once(generation: Mapping[str, Any], shot_share: float) -> float:
    """Return the mean UNet rows of a step that runs the model; arguments as of `mean_row_steps`."""
    return mean_row_steps(generation, shot_share) / _mean(json.dumps(generation), shot_share, _computed_steps)


def _pixel_steps(spec: ImageSpec) -> int:
    return spec.pixel_steps


def _row_steps(spec: ImageSpec) -> int:
    return sum(spec.step_rows)


def _computed_steps(spec: ImageSpec) -> int:
    return sum(rows > 0 for rows in spec.step_rows)


@functools.lru_cache(maxsize=1024)
def _mean(settings: str, shot_share: float, cost: Callable[[ImageSpec], int]) -> float:
    """Return the mean cost of an image of these settings, as JSON: the widest ranges take 0.5 s."""
    generation: dict[str, Any] = json.loads(settings)
    steps = generation["num_inference_steps"]
    numbers = range(steps["min"], steps["max"] + 1) if isinstance(steps, Mapping) else [steps]
    guided_share = _guided_part(generation["guidance_scale"])
    mean = 0.0
    for begun, strengths in ((shot_share, strengths_of(generation)), (1 - shot_share, [None])):
        for guided, scale in ((guided_share, 2.0), (1 - guided_share, 1.0)):
            if begun * guided:
                fixed = {**generation, "prompt": "", "guidance_scale": scale}
                drawn = ({"num_inference_steps": n, "strength": s} for n in numbers for s in strengths)
                mean += begun * guided * fmean(cost(ImageSpec.from_json({**fixed, **one})) for one in drawn)
    return mean


def _guided_part(guidance: float | Mapping[str, float]) -> float:
    """Return the share of a dataset's guidance scales, a number or a range, that are above 1: those of two rows."""
    if not isinstance(guidance, Mapping):
        return float(guidance > 1)
    first, last = (round(guidance[end] * GUIDANCE_STEPS) for end in ("min", "max"))
    return max(0, last - max(first - 1, GUIDANCE_STEPS)) / (last - first + 1)


def new_dataset(
    request: DatasetCreate,
    sizes: SizeRules,
    pack: ModelPack,
    *,
    job_id: str | None,
    key_id: str | None = None,
    drawn_by: DrawnBy | None = None,
    shots: Mapping[str, str] = NO_SHOTS,
) -> Dataset:
    """Return the row of a validated request, with every default resolved; it is in no session yet.

    Args:
        request: As it came.
        sizes: The loaded model's.
        pack: The loaded pack.
        job_id: The job that will make the images.
        key_id: Whose dataset it is.
        drawn_by: The model that the request names; None: the pack's.
        shots: The hash of each shot's pixels by the image's id; see `app.services.datasets.recipes.shots`.
    """
    resolved = with_preset(request, pack=pack.name)
    drawn_by = drawn_by or DrawnBy(pack.name, pack.revision)
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
        generation=_generation(resolved, sizes),
        recipe=_recipe(resolved),
        job_id=job_id,
        pack=drawn_by.name,
        pack_revision=drawn_by.revision,
        texts=DatasetTexts(
            classes=[_class_texts(entry, shots) for entry in resolved.classes],
            variables=resolved.variables,
        ),
    )


def read_datasets(session: Session, datasets: Sequence[Dataset]) -> list[DatasetRead]:
    """Return the API models of datasets, in the same order."""
    ids = [dataset.id for dataset in datasets]
    is_in_slot = Image.position < num_reserved(Dataset)
    columns = (Image.dataset_id, Image.decision, Image.review, Image.split, Image.class_index, is_in_slot)
    grouped = select(*columns, func.count()).join(Dataset, Image.dataset_id == Dataset.id)
    counts: Counter[tuple[Any, ...]] = Counter()
    for dataset_id, decision, review, split, class_index, fills_slot, count in session.execute(
        grouped.where(Image.dataset_id.in_(ids)).group_by(*columns)
    ):
        counts[dataset_id, decision, "in a slot"] += count if fills_slot else 0
        counts[dataset_id, "reviewed", review] += count
        if review != "rejected":
            counts[dataset_id, decision, split, class_index] += count
            counts[dataset_id, decision] += count
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
        RecipeClassRead(
            name=entry["name"],
            label=entry.get("label") or entry["name"],
            prompts=texts["prompts"],
            negative_prompt=texts["negative_prompt"],
            from_images=[shot["image_id"] for shot in texts.get("from_images", [])],
        )
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
            **({"num_shots": len(entry.from_images)} if entry.from_images else {}),
        }
        for entry, folder in zip(resolved.classes, folders, strict=True)
    ]


def _generation(resolved: DatasetCreate, sizes: SizeRules) -> dict[str, Any]:
    """Return the settings of the images; those of a recipe without shots have no strength."""
    values = resolve_settings(resolved.generation, sizes)
    if any(entry.from_images for entry in resolved.classes):
        strength = resolved.generation.strength
        values["strength"] = DEFAULT_SHOT_STRENGTH if strength is None else strength
        if isinstance(strength, StrengthRange):
            values["strength"] = strength.model_dump()
    return values


def _class_texts(entry: DatasetClass, shots: Mapping[str, str]) -> dict[str, Any]:
    texts = entry.model_dump(include={"prompts", "negative_prompt"})
    refs = [{"image_id": image_id, "sha256": shots[image_id]} for image_id in entry.from_images]
    return {**texts, "from_images": refs} if refs else texts


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
        reviews=ReviewCounts(
            accepted=counts[dataset.id, "reviewed", "accepted"], rejected=counts[dataset.id, "reviewed", "rejected"]
        ),
        missing=[MissingPlace(**place) for place in dataset.missing or []],
        progress=Progress(done=counts[dataset.id, "kept", "in a slot"], total=num_to_make(dataset), unit="images"),
        job_id=dataset.job_id,
    )

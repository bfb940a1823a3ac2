"""The plan of a dataset: what a request would generate, with samples and an estimate of the time.

Generates and stores nothing. Runs inside the caller's session, on the caller's thread.
"""

from sqlalchemy.orm import Session

from app.access.caller import Caller
from app.db.models import Dataset
from app.schemas.common import SPLITS
from app.schemas.datasets import DatasetPlan, PlannedClass, PlannedImage
from app.services.datasets.estimates.job_estimator import JobEstimator
from app.services.datasets.recipes.recipe import NO_OFFSETS, Offsets, Recipe, Slot, per_class
from app.services.datasets.records import num_to_make, preset_of, recipe_classes, settings_of

MAX_SAMPLES = 12


def plan_dataset(
    session: Session,
    dataset: Dataset,
    estimator: JobEstimator,
    caller: Caller,
    offsets: Offsets = NO_OFFSETS,
    *,
    num_filled: int = 0,
) -> DatasetPlan:
    """Return the plan of a dataset.

    Args:
        session: Where the work of other jobs is read.
        dataset: The row as it would be, with its texts; it is in no session.
        estimator: Estimates the job's time.
        caller: Whose job it would be.
        offsets: The samples are taken from the slots behind these.
        num_filled: Number of filled slots, >= 0.
    """
    num_images = num_to_make(dataset) - num_filled
    estimate = estimator.estimate(session, dataset, num_images, caller, offsets)
    return DatasetPlan(
        **settings_of(dataset),
        preset=preset_of(dataset),
        variables=dataset.texts.variables,
        name=dataset.name,
        classes=[
            PlannedClass(**read.model_dump(), folder=entry["folder"])
            for read, entry in zip(recipe_classes(dataset), dataset.classes, strict=True)
        ],
        num_images=num_images,
        samples=_samples(dataset, offsets),
        row_steps=estimate.row_steps,
        estimated_seconds=estimate.seconds,
        estimate_basis=estimate.basis,
        estimate=estimate.text,
        assumptions=estimate.assumptions,
    )


def _samples(dataset: Dataset, offsets: Offsets) -> list[PlannedImage]:
    """Sample the first slots of at most `MAX_SAMPLES` classes that are evenly spaced over the dataset."""
    recipe = Recipe(dataset)
    behind = (per_class(dataset, split) - offsets.of(split) for split in SPLITS)
    width = next((num for num in behind if num), 0)  # of the first split with slots
    num_classes = min(len(dataset.classes), MAX_SAMPLES)
    each = min(width, MAX_SAMPLES // num_classes)
    chosen = [k * len(dataset.classes) // num_classes for k in range(num_classes)]
    numbers = [index * width + k for index in chosen for k in range(each)]
    return [_sample(dataset, recipe, recipe.slot(number, offsets)) for number in numbers]


def _sample(dataset: Dataset, recipe: Recipe, slot: Slot) -> PlannedImage:
    drawn = recipe.draw(slot, 0)
    spec = drawn.spec
    return PlannedImage(
        class_name=dataset.classes[slot.class_index]["name"],
        split=slot.split,
        position=slot.position,
        prompt=spec.prompt,
        variables=drawn.lineage["variables"],
        negative_prompt=spec.negative_prompt,
        guidance_scale=spec.guidance_scale,
        num_inference_steps=spec.num_inference_steps,
        seed=spec.seed,
        from_image=spec.init_image.image_id if spec.init_image else None,
        strength=spec.strength,
    )

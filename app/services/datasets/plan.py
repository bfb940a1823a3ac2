"""The plan of a dataset: what a request would generate, with samples and an estimate of the time.

Generates and stores nothing. Runs inside the caller's session, on the caller's thread.
"""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db.models import Dataset, Image, Job
from app.schemas.common import SPLITS
from app.schemas.datasets import DatasetPlan, PlannedClass, PlannedImage
from app.services.datasets.recipes.recipe import NO_OFFSETS, Offsets, Recipe, Slot, per_class
from app.services.datasets.records import mean_pixel_steps, num_to_make, preset_of, recipe_classes, settings_of

MAX_SAMPLES = 12
# Most jobs read for an estimate, newest first; those of deleted datasets and of other packs are skipped.
MAX_JOBS_READ = 20


def plan_dataset(
    session: Session, dataset: Dataset, offsets: Offsets = NO_OFFSETS, *, num_filled: int = 0
) -> DatasetPlan:
    """Return the plan of a dataset.

    Args:
        session: Where the times of other datasets are read.
        dataset: The row as it would be, with its texts; it is in no session.
        offsets: The samples are taken from the slots behind these.
        num_filled: Number of filled slots, >= 0.
    """
    num_images = num_to_make(dataset) - num_filled
    seconds, estimate = _estimate(session, dataset, num_images)
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
        estimated_seconds=seconds,
        estimate=estimate,
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
    )


def _estimate(session: Session, dataset: Dataset, num_images: int) -> tuple[float | None, str]:
    """Return the estimated seconds and their basis: the time of the pack's newest dataset, by pixel-steps."""
    ended = select(Job).where(Job.kind == "dataset", Job.status == "succeeded")
    for job in session.scalars(ended.order_by(Job.id.desc()).limit(MAX_JOBS_READ)):
        other = session.get(Dataset, job.spec["dataset_id"])
        if other is None or other.pack != dataset.pack or job.started_at is None or job.finished_at is None:
            continue
        # Only the images of this job: the dataset may have been extended since. Uploads are refused during a job.
        at_that_time = Image.created_at.between(job.started_at, job.finished_at)
        num = session.scalar(select(func.count()).where(Image.dataset_id == other.id, at_that_time)) or 0
        if num:
            seconds_each = (job.finished_at - job.started_at).total_seconds() / (
                num * mean_pixel_steps(other.generation)
            )
            seconds = round(seconds_each * num_images * mean_pixel_steps(dataset.generation), 1)
            return seconds, "from the time that the newest dataset of this pack took, by steps, pixels and guidance"
    return None, "no dataset has been made with this pack yet"

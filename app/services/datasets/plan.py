"""What a dataset's request would make, and how long that would take by the datasets already made here."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db.models import Dataset, Image, Job
from app.schemas.datasets import DatasetPlan, PlannedClass, PlannedImage
from app.services.datasets.recipe import NO_OFFSETS, Offsets, Recipe, Slot
from app.services.datasets.records import num_to_make, preset_of, recipe_classes, settings_of

MAX_SAMPLES = 12
# Datasets of other packs, and deleted ones, are passed over among the newest so many.
MAX_JOBS_READ = 20


def plan_dataset(session: Session, dataset: Dataset, made: Offsets = NO_OFFSETS, *, num_filled: int = 0) -> DatasetPlan:
    """Describe what a dataset's row, which is in no session, would become, and what is to be made for that.

    Args:
        session: Where the times of other datasets are looked up.
        dataset: The row as it would be, with its texts.
        made: Behind which places the samples are.
        num_filled: How many of its places have their image.
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
        samples=_samples(dataset, made),
        estimated_seconds=seconds,
        estimate=estimate,
    )


def _samples(dataset: Dataset, made: Offsets) -> list[PlannedImage]:
    """Draw the first places of classes that are spread over the dataset, several each where there are few classes."""
    recipe = Recipe(dataset)
    per_class = dataset.train_per_class - made.train or dataset.test_per_class - made.test
    num_classes = min(len(dataset.classes), MAX_SAMPLES)
    each = min(per_class, MAX_SAMPLES // num_classes)
    chosen = [k * len(dataset.classes) // num_classes for k in range(num_classes)]
    numbers = [index * per_class + k for index in chosen for k in range(each)]
    return [_sample(dataset, recipe, recipe.slot(number, made)) for number in numbers]


def _sample(dataset: Dataset, recipe: Recipe, place: Slot) -> PlannedImage:
    drawn = recipe.draw(place, 0)
    spec = drawn.spec
    return PlannedImage(
        class_name=dataset.classes[place.class_index]["name"],
        split=place.split,
        position=place.position,
        prompt=spec.prompt,
        variables=drawn.lineage["variables"],
        negative_prompt=spec.negative_prompt,
        guidance_scale=spec.guidance_scale,
        num_inference_steps=spec.num_inference_steps,
        seed=spec.seed,
    )


def _estimate(session: Session, dataset: Dataset, num_images: int) -> tuple[float | None, str]:
    """Scale the time that the newest dataset of the same pack took by steps, pixels and guidance."""
    ended = select(Job).where(Job.kind == "dataset", Job.status == "succeeded")
    for job in session.scalars(ended.order_by(Job.id.desc()).limit(MAX_JOBS_READ)):
        other = session.get(Dataset, job.spec["dataset_id"])
        if other is None or other.pack != dataset.pack or job.started_at is None or job.finished_at is None:
            continue
        # Of a dataset that was extended, those of this job alone; while it ran, nobody could upload.
        at_that_time = Image.created_at.between(job.started_at, job.finished_at)
        num = session.scalar(select(func.count()).where(Image.dataset_id == other.id, at_that_time)) or 0
        if num:
            seconds_each = (job.finished_at - job.started_at).total_seconds() / (num * _work(other.generation))
            seconds = round(seconds_each * num_images * _work(dataset.generation), 1)
            return seconds, "from the time that the newest dataset of this pack took, by steps, pixels and guidance"
    return None, "no dataset has been made with this pack yet"


def _work(generation: Mapping[str, Any]) -> float:
    """Return what an image costs on average: rows x steps x pixels; a guided step is two rows."""
    steps, guidance = _mean(generation["num_inference_steps"]), _mean(generation["guidance_scale"])
    rows = 2 if guidance > 1 else 1
    return float(rows * steps * generation["width"] * generation["height"])


def _mean(setting: float | Mapping[str, float]) -> float:
    return (setting["min"] + setting["max"]) / 2 if isinstance(setting, Mapping) else setting

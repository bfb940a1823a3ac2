"""The images of the dataset that a train job reads: their columns, their number, and what the lineage says of them.

Imports no model and no torch. Runs in the worker process, inside the session or on the thread of its caller.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select
from sqlalchemy.orm import Session

from app.db.models import Dataset, Image
from app.jobs.record import advance, enter
from app.services.datasets.rows import find_dataset
from app.services.datasets.slots import refuse_empty_classes
from app.services.datasets.versions import content_version, images_of, num_images_of
from app.services.training.payloads import FeaturesPlan, TrainSpec


def count_images(session: Session, job_id: str, spec: TrainSpec, plan: FeaturesPlan) -> int:
    """Return how many images the dataset has, and count those that no chunk reads; refuse an empty class."""
    refuse_empty_classes(session, find_dataset(session, spec.dataset_id))
    total = num_images_of(session, spec.dataset_id)
    enter(session, job_id, "features")
    advance(session, job_id, plan.num_cached(total))
    return total


def training_columns(dataset_id: str) -> Select[Any]:
    """Select the columns that training needs; the lineages of all images would take hundreds of megabytes."""
    file: tuple[Any, ...] = (Image.id, Image.dataset_id, Image.path, Image.sha256, Image.num_bytes)
    return images_of(dataset_id).with_only_columns(*file, Image.split, Image.class_index, Image.source, Image.seed)


def origin(dataset: Dataset, images: Sequence[Any]) -> dict[str, Any]:
    """Return what the model was trained on, with the version of its content."""
    return {
        "id": dataset.id,
        "name": dataset.name,
        "num_images": len(images),
        "num_real": sum(image.source == "real" for image in images),
        "version": content_version(dataset, ((image.split, image.class_index, image.sha256) for image in images)),
    }

"""The slots of a dataset: which are filled, which are empty, and whether every class can be trained on.

A slot is one image that the recipe asks for: a split, a class and a position below the number per class. It is filled
by the image generated for it, or by one uploaded while the dataset was `incomplete`. Imports no storage and no engine.
Functions run inside the caller's transaction, on the caller's thread.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session

from app.db.models import Dataset, Image, Job, active_jobs
from app.error_codes import ErrorCode
from app.errors import Conflict, FieldError, Invalid
from app.schemas.common import SPLITS
from app.services.datasets.payloads import DatasetWork, attempts_json
from app.services.datasets.recipes.recipe import PriorAttempts, max_attempts, per_class
from app.services.datasets.records import images_in, kept_images, num_reserved, num_to_make

# The job has ended and images are missing: training needs `allow_incomplete`.
UNFINISHED = ("incomplete", "failed", "cancelled")
# Most classes that an error detail names.
MAX_CLASSES_NAMED = 5


def in_slot(dataset: Dataset) -> ColumnElement[bool]:
    """Match the images that fill a slot of the dataset; images uploaded behind the slots do not match."""
    return Image.position < num_reserved(dataset)


def num_filled(session: Session, dataset: Dataset) -> int:
    """Return the number of filled slots of a dataset."""
    filled = kept_images(dataset.id).where(in_slot(dataset))
    return session.scalar(filled.with_only_columns(func.count())) or 0


def first_free_position(session: Session, dataset: Dataset, class_index: int, split: str) -> int:
    """Return the position of the next uploaded image.

    It is the first empty slot of its class in an `incomplete` dataset, else the first position behind all slots.
    """
    here = kept_images(dataset.id).where(Image.split == split, Image.class_index == class_index)
    reserved = per_class(dataset, split)
    if dataset.status == "incomplete":  # the empty slots of a failed or cancelled job are filled by its retry
        positions = here.with_only_columns(Image.position).where(Image.position < reserved)
        empty = set(range(reserved)).difference(session.scalars(positions))
        if empty:
            return min(empty)
    last = session.scalar(here.with_only_columns(func.max(Image.position)))
    return max(reserved, 0 if last is None else last + 1)


def record_upload(session: Session, dataset: Dataset, image: Image) -> None:
    """Remove an uploaded image's slot from the dataset's list of missing ones, and update the dataset's status."""
    if dataset.status == "empty":
        dataset.status = "ready"
    if dataset.status != "incomplete":
        return
    session.flush()
    name = dataset.classes[image.class_index or 0]["name"]
    filled = (name, image.split, image.position)
    missing = dataset.missing or []
    dataset.missing = [one for one in missing if (one["class_name"], one["split"], one["position"]) != filled]
    if num_filled(session, dataset) == num_to_make(dataset):
        dataset.status, dataset.missing = "ready", []


def prior_attempts(session: Session, dataset: Dataset) -> PriorAttempts:
    """Return the attempts that the jobs so far made at the empty slots of a dataset.

    A job that failed or was cancelled does not count: it did not attempt all of its slots, and its retry repeats it.
    """
    job = session.get(Job, dataset.job_id) if dataset.job_id is not None else None
    before = DatasetWork.from_json(job.spec).tried if job is not None else PriorAttempts()
    if dataset.status != "incomplete":
        return before
    attempts = before.attempts + max_attempts(dataset)
    return PriorAttempts.at_all(dataset, attempts)


def retry_changes(session: Session, job: Job) -> dict[str, Any] | None:
    """Return what is to change in a job's spec so that its retry completes an `incomplete` dataset; None: nothing."""
    dataset = session.get(Dataset, job.spec["dataset_id"]) if makes_dataset(job) else None
    if dataset is None or dataset.status != "incomplete":
        return None
    return {"made": {}, "tried": attempts_json(prior_attempts(session, dataset))}


def makes_dataset(job: Job) -> bool:
    """Return whether a job makes images of a dataset: a `dataset` job, or a `train` job whose request brought one."""
    return job.kind == "dataset" or (job.kind == "train" and job.spec["dataset"] is not None)


def job_on(session: Session, dataset_id: str, *, of: Collection[str]) -> str | None:
    """Return the id of a job of one of these kinds, waiting or running, that uses a dataset; None if none does."""
    holding = select(Job.id).where(active_jobs(), Job.kind.in_(of), Job.spec["dataset_id"].as_string() == dataset_id)
    return session.scalar(holding.limit(1))


def refuse_repair(session: Session, dataset_id: str) -> None:
    """Raise if a dataset is being repaired.

    Raises:
        Conflict: `dataset_in_use`.
    """
    if job_id := job_on(session, dataset_id, of=("repair",)):
        raise in_use("The dataset is being repaired. Wait for that job, or cancel it.", job_id)


def in_use(detail: str, job_id: str | None) -> Conflict:
    """Return the error for a dataset that a job uses."""
    return Conflict(detail, code=ErrorCode.DATASET_IN_USE, members={"existing_id": job_id} if job_id else None)


def refuse_unfinished(session: Session, dataset: Dataset, *, allow_incomplete: bool) -> None:
    """Raise if a dataset is not ready for training; one that only lacks images passes with `allow_incomplete`.

    Raises:
        Conflict: `dataset_not_ready`; the detail counts the missing images.
    """
    if dataset.status == "ready" or (allow_incomplete and dataset.status in UNFINISHED):
        return
    if dataset.status not in UNFINISHED:
        detail = f"The dataset is {dataset.status}. Wait until it is ready."
        raise Conflict(detail, code=ErrorCode.DATASET_NOT_READY, members=_job_of(dataset))
    lacking = _lacking(session, dataset)
    detail = (
        f"The dataset is {dataset.status}: {sum(lacking.values())} images are missing ({_listed(dataset, lacking)}). "
        'Retry its job, upload images, or train without them by "allow_incomplete": true.'
    )
    raise Conflict(detail, code=ErrorCode.DATASET_NOT_READY, members=_job_of(dataset))


def _job_of(dataset: Dataset) -> dict[str, str] | None:
    """Return the member that names the job of a dataset: the one to wait for, or to retry."""
    return {"existing_id": dataset.job_id} if dataset.job_id else None


def class_sizes(session: Session, dataset: Dataset) -> list[int]:
    """Return the number of training images of each class."""
    counts = _counts(session, images_in(dataset.id))
    return [counts["train", index] for index in range(len(dataset.classes))]


def has_validation(session: Session, dataset: Dataset) -> bool:
    """Return whether a dataset has images of the split `validation`, or slots for them."""
    own = images_in(dataset.id).where(Image.split == "validation").with_only_columns(Image.id).limit(1)
    return per_class(dataset, "validation") > 0 or session.scalar(own) is not None


def refuse_empty_classes(session: Session, dataset: Dataset, pointer: str | None = None) -> None:
    """Raise if a class of a dataset has no training image.

    Args:
        session: The transaction.
        dataset: The dataset.
        pointer: JSON Pointer of the field that names the dataset; None where there is no request.

    Raises:
        Invalid: `dataset_empty` if no class has a training image, else `class_without_images`.
    """
    counts = _counts(session, images_in(dataset.id))
    empty = [index for index in range(len(dataset.classes)) if not counts["train", index]]
    if not empty:
        return
    if len(empty) == len(dataset.classes):
        code, detail = ErrorCode.DATASET_EMPTY, "The dataset has no training images."
    else:
        names = _names(dataset, empty)
        code = ErrorCode.CLASS_WITHOUT_IMAGES
        detail = f"Each class needs a training image; {len(empty)} of {len(dataset.classes)} have none: {names}."
    raise Invalid(detail, code=code, errors=[FieldError(pointer, detail, code)] if pointer is not None else [])


def _lacking(session: Session, dataset: Dataset) -> Counter[tuple[str, int]]:
    counts = _counts(session, kept_images(dataset.id).where(in_slot(dataset)))
    groups = [(split, index) for index in range(len(dataset.classes)) for split in SPLITS]
    return Counter({group: per_class(dataset, group[0]) - counts[group] for group in groups})


def _listed(dataset: Dataset, lacking: Counter[tuple[str, int]]) -> str:
    return _joined([f"{dataset.classes[i]['name']}: {num} {split}" for (split, i), num in lacking.items() if num > 0])


def _names(dataset: Dataset, indexes: Sequence[int]) -> str:
    return _joined([dataset.classes[index]["name"] for index in indexes])


def _joined(texts: list[str]) -> str:
    more = len(texts) - MAX_CLASSES_NAMED
    return ", ".join(texts[:MAX_CLASSES_NAMED]) + (f" and {more} more" if more > 0 else "")


def _counts(session: Session, images: Select[Any]) -> Counter[tuple[str, int]]:
    """Count images by split and class."""
    columns = (Image.split, Image.class_index)
    rows = session.execute(images.with_only_columns(*columns, func.count()).group_by(*columns))
    return Counter({(split or "", index or 0): num for split, index, num in rows})

"""A dataset's places: which are filled, which are not, and whether every class can be trained on.

A place is one image that the recipe asks for: a split, a class and a position below the number per class. It is filled
by the image generated for it, or by one uploaded while the dataset was `incomplete`. Called inside transactions.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, Select, case, func, select
from sqlalchemy.orm import Session

from app.db.models import Dataset, Image, Job, active_jobs
from app.error_codes import ErrorCode
from app.errors import Conflict, FieldError, Invalid
from app.services.datasets.payloads import DatasetWork
from app.services.datasets.recipe import Recipe, Tried
from app.services.datasets.records import kept_images, num_to_make

# A job has ended without all images: training needs `allow_incomplete`.
UNFINISHED = ("incomplete", "failed", "cancelled")
SPLITS = ("train", "test")
# Classes named in a detail.
MAX_CLASSES_TOLD = 5


def per_class(dataset: Dataset, split: str) -> int:
    """Return how many places each class of a dataset has in a split."""
    return dataset.train_per_class if split == "train" else dataset.test_per_class


def in_place(dataset: Dataset) -> ColumnElement[bool]:
    """Match the images that fill a dataset's places; uploaded ones behind them do not."""
    return Image.position < case((Image.split == "train", dataset.train_per_class), else_=dataset.test_per_class)


def num_filled(session: Session, dataset: Dataset) -> int:
    """Return how many of a dataset's places have their image."""
    filled = kept_images(dataset.id).where(in_place(dataset))
    return session.scalar(filled.with_only_columns(func.count())) or 0


def first_free_position(session: Session, dataset: Dataset, class_index: int, split: str) -> int:
    """Return where an uploaded image goes.

    That is the first empty place of its class in an `incomplete` dataset, else behind all places.
    """
    here = kept_images(dataset.id).where(Image.split == split, Image.class_index == class_index)
    reserved = per_class(dataset, split)
    if dataset.status == "incomplete":  # what a failed or cancelled job left is its retry's to fill
        positions = here.with_only_columns(Image.position).where(Image.position < reserved)
        empty = set(range(reserved)).difference(session.scalars(positions))
        if empty:
            return min(empty)
    last = session.scalar(here.with_only_columns(func.max(Image.position)))
    return max(reserved, 0 if last is None else last + 1)


def settle_filled(session: Session, dataset: Dataset, image: Image) -> None:
    """Note that an uploaded image is there: its place is missing no more, and the dataset may be whole by it."""
    if dataset.status == "empty":
        dataset.status = "ready"
    if dataset.status != "incomplete":
        return
    session.flush()
    name = dataset.classes[image.class_index or 0]["name"]
    filled = (name, image.split, image.position)
    told = dataset.missing or []
    dataset.missing = [one for one in told if (one["class_name"], one["split"], one["position"]) != filled]
    if num_filled(session, dataset) == num_to_make(dataset):
        dataset.status, dataset.missing = "ready", []


def tried_in_vain(session: Session, dataset: Dataset) -> Tried:
    """Return how often the empty places of a dataset were tried by the jobs so far.

    Those of a job that failed or was cancelled are tried again as by itself: not all of its places had their turn.
    """
    job = session.get(Job, dataset.job_id) if dataset.job_id is not None else None
    before = DatasetWork.from_json(job.spec).tried if job is not None else Tried()
    if dataset.status != "incomplete":
        return before
    attempts = before.attempts + Recipe(dataset).max_attempts
    return Tried(dataset.train_per_class, dataset.test_per_class, attempts)


def retry_changes(session: Session, job: Job) -> dict[str, Any] | None:
    """Return what is to change in a job's spec so that its retry completes an `incomplete` dataset; None: nothing."""
    dataset = session.get(Dataset, job.spec["dataset_id"]) if makes_dataset(job) else None
    if dataset is None or dataset.status != "incomplete":
        return None
    return {"made": {}, "tried": asdict(tried_in_vain(session, dataset))}


def makes_dataset(job: Job) -> bool:
    """Return whether a job makes images of a dataset: a `dataset` job, or a `train` job whose request brought one."""
    return job.kind == "dataset" or (job.kind == "train" and job.spec["dataset"] is not None)


def is_held(session: Session, dataset_id: str, *, by: Collection[str]) -> bool:
    """Tell whether a job of one of these kinds, waiting or running, works with a dataset."""
    holding = select(Job.id).where(active_jobs(), Job.kind.in_(by), Job.spec["dataset_id"].as_string() == dataset_id)
    return session.scalar(holding.limit(1)) is not None


def refuse_repair(session: Session, dataset_id: str) -> None:
    """Refuse to begin with a dataset that is being repaired.

    Raises:
        Conflict: `dataset_in_use`.
    """
    if is_held(session, dataset_id, by=("repair",)):
        raise Conflict("The dataset is being repaired; wait for that job, or cancel it.", code=ErrorCode.DATASET_IN_USE)


def refuse_unfinished(session: Session, dataset: Dataset, *, allow_incomplete: bool) -> None:
    """Refuse to train on a dataset that is not ready, unless it only lacks images and that is allowed.

    Raises:
        Conflict: `dataset_not_ready`, with what is missing.
    """
    if dataset.status == "ready" or (allow_incomplete and dataset.status in UNFINISHED):
        return
    if dataset.status not in UNFINISHED:
        detail = f"The dataset is {dataset.status}; only a ready one trains."
        raise Conflict(detail, code=ErrorCode.DATASET_NOT_READY)
    lacking = _lacking(session, dataset)
    detail = (
        f"The dataset is {dataset.status}: {sum(lacking.values())} images are missing ({_told(dataset, lacking)}). "
        'Retry its job, upload images, or train without them by "allow_incomplete": true.'
    )
    raise Conflict(detail, code=ErrorCode.DATASET_NOT_READY)


def refuse_empty_classes(session: Session, dataset: Dataset, pointer: str | None = None) -> None:
    """Refuse to train on a dataset of which a class has no training image.

    Args:
        session: The transaction.
        dataset: Which.
        pointer: Where the request names it; None where there is no request.

    Raises:
        Invalid: `dataset_empty`: there is no training image at all; `class_without_images`.
    """
    counts = _counts(session, kept_images(dataset.id))
    empty = [index for index in range(len(dataset.classes)) if not counts["train", index]]
    if not empty:
        return
    if len(empty) == len(dataset.classes):
        code, detail = "dataset_empty", "The dataset has no training images."
    else:
        names = _names(dataset, empty)
        code = "class_without_images"
        detail = f"Each class needs a training image; {len(empty)} of {len(dataset.classes)} have none: {names}."
    raise Invalid(detail, code=code, errors=[FieldError(pointer, detail, code)] if pointer is not None else [])


def _lacking(session: Session, dataset: Dataset) -> Counter[tuple[str, int]]:
    counts = _counts(session, kept_images(dataset.id).where(in_place(dataset)))
    places = [(split, index) for index in range(len(dataset.classes)) for split in SPLITS]
    return Counter({place: per_class(dataset, place[0]) - counts[place] for place in places})


def _told(dataset: Dataset, lacking: Counter[tuple[str, int]]) -> str:
    told = [f"{dataset.classes[i]['name']}: {num} {split}" for (split, i), num in lacking.items() if num > 0]
    return _cut(told)


def _names(dataset: Dataset, indexes: Sequence[int]) -> str:
    return _cut([dataset.classes[index]["name"] for index in indexes])


def _cut(told: list[str]) -> str:
    more = len(told) - MAX_CLASSES_TOLD
    return ", ".join(told[:MAX_CLASSES_TOLD]) + (f" and {more} more" if more > 0 else "")


def _counts(session: Session, images: Select[Any]) -> Counter[tuple[str, int]]:
    """Count images by split and class."""
    columns = (Image.split, Image.class_index)
    rows = session.execute(images.with_only_columns(*columns, func.count()).group_by(*columns))
    return Counter({(split or "", index or 0): num for split, index, num in rows})

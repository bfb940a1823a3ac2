"""Labelled datasets: accept, list, read, delete. Making their images is a job, see `dataset_job.py`."""

import secrets
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.db.base import new_id
from app.db.models import Dataset, Image, Job
from app.db.session import Database
from app.errors import Conflict, FieldError, NotFound
from app.jobs.queue import JobQueue
from app.schemas.common import Page
from app.schemas.datasets import DatasetClassRead, DatasetCreate, DatasetRead
from app.schemas.generations import GenerationSettings, ModelRef
from app.schemas.jobs import Progress
from app.services.image_specs import faults_of, prompt_faults, settle
from app.services.inference import Inference
from app.services.limits import Limits, refuse
from app.services.paging import fetch_page
from app.storage.layout import DataFolder, class_folders

ACTIVE = ("queued", "generating")


class DatasetService:
    """Everything about datasets but the making of their images."""

    def __init__(self, db: Database, folder: DataFolder, inference: Inference, jobs: JobQueue, limits: Limits) -> None:
        """Wire the service; `folder` is the node's data folder."""
        self._db = db
        self._folder = folder
        self._inference = inference
        self._jobs = jobs
        self._limits = limits

    def create(self, request: DatasetCreate) -> DatasetRead:
        """Accept a dataset and enqueue the job that makes its images.

        Raises:
            Invalid: Classes collide, there is nothing to make, or the loaded model refuses a setting.
            Conflict: The name is taken.
        """
        faults = self.faults(request)
        refuse(faults)
        with self._db.transaction() as session:
            job_id = new_id()
            dataset = self.add(session, request, job_id=job_id)
            total = num_images(dataset)
            spec = {**request.model_dump(mode="json"), "seed": dataset.seed, "dataset_id": dataset.id}
            self._jobs.submit(session, kind="dataset", spec=spec, total=total, unit="images", job_id=job_id)
            return _read(session, [dataset])[0]

    def faults(self, request: DatasetCreate, *, base: str = "#") -> list[FieldError]:
        """Return what this node refuses in a dataset's request; `base` points at it in the body."""
        sizes = self._inference.sizes
        faults = faults_of(settle(request.generation, sizes), sizes, self._limits, base=f"{base}/generation")
        try:
            class_folders([entry.name for entry in request.classes])
        except ValueError:
            detail = "names must differ by more than letter case and Unicode form"
            faults.append(FieldError(f"{base}/classes", detail, "duplicate_classes"))
        total = len(request.classes) * (request.train_per_class + request.test_per_class)
        if total == 0:
            faults.append(FieldError(f"{base}/train_per_class", "no image would be made", "dataset_empty"))
        if total > self._limits.dataset_images:
            detail = f"{total} images; at most {self._limits.dataset_images} are taken"
            faults.append(FieldError(f"{base}/classes", detail, "too_many_images"))
        prompts = [
            (f"{base}/classes/{i}/prompts/{j}", prompt)
            for i, entry in enumerate(request.classes)
            for j, prompt in enumerate(entry.prompts)
        ]
        return faults + prompt_faults(prompts, self._limits)

    def add(self, session: Session, request: DatasetCreate, *, job_id: str) -> Dataset:
        """Add the row of an accepted dataset.

        Raises:
            Conflict: The name is taken.
        """
        pack = self._inference.pack
        names = [entry.name for entry in request.classes]
        classes = [
            {**entry.model_dump(), "folder": folder}
            for entry, folder in zip(request.classes, class_folders(names), strict=True)
        ]
        dataset = Dataset(
            id=new_id(),
            name=request.name,
            status="queued",
            seed=request.seed if request.seed is not None else secrets.randbelow(2**32),
            classes=classes,
            train_per_class=request.train_per_class,
            test_per_class=request.test_per_class,
            generation=settle(request.generation, self._inference.sizes),
            job_id=job_id,
            pack=pack.name,
            pack_revision=pack.revision,
        )
        session.add(dataset)
        try:
            session.flush()
        except IntegrityError:
            raise Conflict("a dataset of this name exists", code="dataset_name_taken") from None
        return dataset

    def page(self, limit: int, cursor: str | None) -> Page[DatasetRead]:
        """Return a page of datasets, newest first."""
        with self._db.snapshot() as session:
            rows, next_cursor = fetch_page(session, select(Dataset), Dataset.id, limit, cursor)
            return Page[DatasetRead](items=_read(session, rows), next_cursor=next_cursor)

    def read(self, dataset_id: str) -> DatasetRead:
        """Return one dataset.

        Raises:
            NotFound: There is none with this id.
        """
        with self._db.snapshot() as session:
            return _read(session, [find_dataset(session, dataset_id)])[0]

    def delete(self, dataset_id: str) -> None:
        """Delete a dataset, its records and its folder.

        Raises:
            NotFound: There is none with this id.
            Conflict: Its images are being made, or a train job reads it.
        """
        with self._db.transaction() as session:
            dataset = find_dataset(session, dataset_id)
            if dataset.status in ACTIVE or _is_training(session, dataset_id):
                raise Conflict("a job works on this dataset; cancel it first", code="dataset_in_use")
            session.delete(dataset)
        self._folder.delete_dataset(dataset.name)


def find_dataset(session: Session, dataset_id: str) -> Dataset:
    """Return the row of a dataset.

    Raises:
        NotFound: There is none with this id.
    """
    dataset = session.get(Dataset, dataset_id)
    if dataset is None:
        raise NotFound("there is no dataset with this id")
    return dataset


def num_images(dataset: Dataset) -> int:
    """Return how many images the dataset is to have."""
    return len(dataset.classes) * (dataset.train_per_class + dataset.test_per_class)


def _is_training(session: Session, dataset_id: str) -> bool:
    active = select(Job.spec).where(Job.kind == "train", Job.status.in_(("queued", "running")))
    return any(spec["dataset_id"] == dataset_id for spec in session.scalars(active))


def _read(session: Session, datasets: Sequence[Dataset]) -> list[DatasetRead]:
    ids = [dataset.id for dataset in datasets]
    grouped = (
        select(Image.dataset_id, Image.split, Image.class_index, func.count())
        .where(Image.dataset_id.in_(ids))
        .group_by(Image.dataset_id, Image.split, Image.class_index)
    )
    counts: Counter[tuple[Any, ...]] = Counter({(a, b, c): n for a, b, c, n in session.execute(grouped)})
    return [_dataset_read(dataset, counts) for dataset in datasets]


def _dataset_read(dataset: Dataset, counts: Counter[tuple[Any, ...]]) -> DatasetRead:
    classes = [
        DatasetClassRead(
            name=entry["name"],
            folder=entry["folder"],
            prompts=entry["prompts"],
            negative_prompt=entry["negative_prompt"],
            num_train=counts[dataset.id, "train", index],
            num_test=counts[dataset.id, "test", index],
        )
        for index, entry in enumerate(dataset.classes)
    ]
    done = sum(entry.num_train + entry.num_test for entry in classes)
    pack = ModelRef(id=None, name=dataset.pack, revision=dataset.pack_revision or "") if dataset.pack else None
    return DatasetRead(
        id=dataset.id,
        name=dataset.name,
        created_at=dataset.created_at,
        status=dataset.status,
        seed=dataset.seed,
        classes=classes,
        train_per_class=dataset.train_per_class,
        test_per_class=dataset.test_per_class,
        generation=GenerationSettings(**dataset.generation),
        model=pack,
        num_images=done,
        progress=Progress(done=done, total=num_images(dataset), unit="images"),
        job_id=dataset.job_id,
    )

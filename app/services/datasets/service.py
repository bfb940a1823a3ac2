"""Labelled datasets: accept, list, read, delete. Making their images is a job, see `dataset_job.py`."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.db.base import new_id
from app.db.models import Dataset
from app.db.session import Database
from app.error_codes import ErrorCode
from app.errors import Conflict, FieldError
from app.jobs.queue import JobQueue
from app.schemas.common import Page
from app.schemas.datasets import DatasetCreate, DatasetPlan, DatasetRead, DatasetRecipeRead
from app.services.datasets.plan import plan_dataset
from app.services.datasets.recipe_read import recipe_read
from app.services.datasets.records import new_dataset, num_to_make, read_datasets
from app.services.datasets.rows import find_dataset, refuse_in_use
from app.services.datasets.validation import dataset_faults
from app.services.inference.service import Inference
from app.services.jobs.idempotency import ANEW, Submission, accept
from app.services.limits import Limits, refuse
from app.services.pagination import fetch_page, json_bytes
from app.services.store.recovery import clear_for, settle_deletion
from app.storage.layout import DataFolder

# What the numbers of a class's images add to an answer.
_COUNTS_BYTES = 40


class DatasetService:
    """Everything about datasets but the making of their images."""

    def __init__(self, db: Database, folder: DataFolder, inference: Inference, jobs: JobQueue, limits: Limits) -> None:
        """Wire the service; `folder` is the node's data folder."""
        self._db = db
        self._folder = folder
        self._inference = inference
        self._jobs = jobs
        self._limits = limits

    def create(self, request: DatasetCreate, submission: Submission = ANEW) -> DatasetRead:
        """Accept a dataset and enqueue the job that makes its images; one of none waits for uploads without a job.

        Raises:
            Invalid: Classes collide, or the loaded model refuses a setting.
            Conflict: The name is taken.
        """
        faults = self.faults(request)
        refuse(faults)

        def work(session: Session) -> DatasetRead:
            job_id = new_id()
            dataset = self.add(session, request, job_id=job_id)
            total = num_to_make(dataset)
            if total == 0:  # its images will be uploaded
                dataset.status, dataset.job_id = "empty", None
                return read_datasets(session, [dataset])[0]
            spec = {**small_request(request), "seed": dataset.seed, "dataset_id": dataset.id}
            self._jobs.submit(
                session,
                kind="dataset",
                spec=spec,
                total=total,
                unit="images",
                job_id=job_id,
                priority=submission.priority,
            )
            return read_datasets(session, [dataset])[0]

        return accept(self._db, submission, work, location=lambda dataset: f"/datasets/{dataset.id}")

    def plan(self, request: DatasetCreate) -> DatasetPlan:
        """Tell what `create` would make of a request; nothing is stored.

        Raises:
            Invalid, Conflict: As `create` would.
        """
        refuse(self.faults(request))
        dataset = new_dataset(request, self._inference.sizes, self._inference.pack, job_id=None)
        with self._db.snapshot() as session:
            _refuse_taken_name(session, dataset.name)
            return plan_dataset(session, dataset)

    def faults(self, request: DatasetCreate, *, base: str = "#") -> list[FieldError]:
        """Return what this node refuses in a dataset's request; `base` points at it in the body."""
        return dataset_faults(request, self._inference.sizes, self._limits, base=base)

    def add(self, session: Session, request: DatasetCreate, *, job_id: str) -> Dataset:
        """Add the row of an accepted dataset.

        Raises:
            Conflict: The name is taken.
        """
        _refuse_taken_name(session, request.name)
        dataset = new_dataset(request, self._inference.sizes, self._inference.pack, job_id=job_id)
        session.add(dataset)
        try:
            session.flush()
        except IntegrityError:  # taken since, by a transaction that this one does not see
            raise _name_taken() from None
        return dataset

    def page(self, limit: int, cursor: str | None) -> Page[DatasetRead]:
        """Return a page of datasets, newest first."""
        with self._db.snapshot() as session:
            rows, next_cursor = fetch_page(session, select(Dataset), Dataset.id, limit, cursor, weigh=_weight)
            return Page[DatasetRead](items=read_datasets(session, rows), next_cursor=next_cursor)

    def read(self, dataset_id: str) -> DatasetRead:
        """Return one dataset.

        Raises:
            NotFound: There is none with this id.
        """
        with self._db.snapshot() as session:
            return read_datasets(session, [find_dataset(session, dataset_id)])[0]

    def recipe(self, dataset_id: str) -> DatasetRecipeRead:
        """Return the recipe of a dataset as a body of `POST /datasets`.

        Raises:
            NotFound: There is none with this id.
        """
        with self._db.snapshot() as session:
            return recipe_read(find_dataset(session, dataset_id, with_texts=True))

    def delete(self, dataset_id: str) -> None:
        """Delete a dataset, its records and its folder.

        Raises:
            NotFound: There is none with this id.
            Conflict: Its images are being made, or a train job reads it.
        """
        self._folder.reserve.spend(lambda: self._delete(dataset_id))

    def _delete(self, dataset_id: str) -> None:
        try:
            with self._db.transaction() as session:
                dataset = find_dataset(session, dataset_id, lock=True)
                refuse_in_use(session, dataset)
                clear_for(session, self._folder, dataset)  # what is not the dataset's own is not deleted with it
                session.delete(dataset)
                session.flush()
                # Before the commit, with which the name is free: the next of that name finds nothing in its place.
                self._folder.take_dataset(dataset.name, dataset_id)
        finally:
            settle_deletion(self._db, self._folder, dataset_id)


def small_request(request: DatasetCreate) -> dict[str, Any]:
    """Return what a job keeps of a dataset's request: all but its texts, which stand beside the dataset's row."""
    return request.model_dump(mode="json", exclude={"classes", "variables"})


def _refuse_taken_name(session: Session, name: str) -> None:
    taken_by = session.scalar(select(Dataset.id).where(Dataset.name == name))
    if taken_by is not None:
        raise _name_taken({"dataset_id": taken_by})


def _weight(dataset: Dataset) -> int:
    return json_bytes([dataset.classes, dataset.missing]) + _COUNTS_BYTES * len(dataset.classes)


def _name_taken(members: Mapping[str, str] | None = None) -> Conflict:
    return Conflict(
        "A dataset of this name exists. Choose another name.", code=ErrorCode.DATASET_NAME_TAKEN, members=members
    )

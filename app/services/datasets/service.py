"""The service for labelled datasets: create, plan, list, read, repair, delete.

The jobs in `job.py` and `repair_job.py` generate the images. Imports no HTTP framework. Methods run on a worker thread
of the API process, not on its event loop.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.access.caller import Caller
from app.access.visibility import seen
from app.db.base import new_id
from app.db.models import Dataset, Image
from app.db.session import Database
from app.error_codes import ErrorCode
from app.errors import Conflict, FieldError, Invalid
from app.image_spec import DrawnBy
from app.jobs.queue import JobQueue
from app.schemas.datasets import DatasetCreate, DatasetPage, DatasetPlan, DatasetRead, DatasetRecipeRead
from app.schemas.jobs import RepairJob
from app.services.datasets.dry_run import plan_dataset
from app.services.datasets.estimates.job_estimator import JobEstimator
from app.services.datasets.payloads import RepairSpec
from app.services.datasets.recipes.shots.loading import ShotLoader, Shots
from app.services.datasets.recipes.shots.records import add_shots
from app.services.datasets.records import new_dataset, num_to_make, pixel_steps, read_datasets, recipe_read
from app.services.datasets.rows import find_dataset, refuse_in_use, refuse_other_model
from app.services.datasets.validation import dataset_faults
from app.services.images.spec import resolve_settings
from app.services.inference.service import Inference
from app.services.jobs.idempotency import ANEW, Submission, accept
from app.services.jobs.service import job_read_as
from app.services.limits import Limits, raise_if_invalid
from app.services.pagination import count_matches, fetch_page, json_bytes, matching
from app.services.store.recovery import clear_dataset_folders, finish_deletion
from app.storage.layout import DataFolder

# Bytes of JSON that the image counts of a class add to an answer, about.
_COUNTS_BYTES = 40


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a request names, looked up before its transaction: pictures are decoded, a model's files are hashed.

    Attributes:
        shots: The pictures of its classes.
        drawn_by: The model that will draw.
    """

    shots: Shots
    drawn_by: DrawnBy


class DatasetService:
    """Creates, plans, lists, reads, repairs and deletes datasets."""

    def __init__(
        self,
        db: Database,
        folder: DataFolder,
        inference: Inference,
        jobs: JobQueue,
        limits: Limits,
        estimator: JobEstimator,
        shots: ShotLoader,
    ) -> None:
        """Wire the service; `folder` is the node's data folder."""
        self._db = db
        self._folder = folder
        self._inference = inference
        self._jobs = jobs
        self._limits = limits
        self._estimator = estimator
        self._shots = shots

    def create(self, request: DatasetCreate, submission: Submission = ANEW) -> DatasetRead:
        """Accept a dataset and enqueue the job that generates its images; without slots it gets no job.

        Raises:
            Invalid: Two classes have the same name, or the loaded model does not support a setting.
            Invalid, UnsupportedImage, PayloadTooLarge, FileLost: A shot cannot be used.
            Conflict: The name is taken.
        """
        faults = self.faults(request)
        raise_if_invalid(faults)
        prepared = self.prepare(request, submission.caller)

        def work(session: Session) -> DatasetRead:
            job_id = new_id()
            dataset = self.add(session, request, submission.caller, job_id=job_id, prepared=prepared)
            total = num_to_make(dataset)
            if total == 0:  # its images will be uploaded
                self._folder.reserve.check()  # jobs check it in their queue
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
                caller=submission.caller,
                pixel_steps=pixel_steps(dataset),
            )
            return read_datasets(session, [dataset])[0]

        return accept(self._db, submission, work, location=lambda dataset: f"/datasets/{dataset.id}")

    def plan(self, request: DatasetCreate, caller: Caller) -> DatasetPlan:
        """Return what `create` would generate for a request; nothing is stored.

        Raises:
            Invalid, UnsupportedImage, PayloadTooLarge, FileLost, Conflict: As `create` would.
        """
        raise_if_invalid(self.faults(request))
        dataset = self._new(request, self.prepare(request, caller))
        with self._db.snapshot() as session:
            _refuse_taken_name(session, dataset.name, caller)
            return plan_dataset(session, dataset, self._estimator, caller)

    def faults(self, request: DatasetCreate, *, base: str = "#") -> list[FieldError]:
        """Return the errors in a dataset's request; `base` is its JSON Pointer in the body."""
        inference = self._inference
        return dataset_faults(request, inference.sizes, self._limits, pack=inference.pack.name, base=base)

    def prepare(self, request: DatasetCreate, caller: Caller, *, base: str = "#") -> Prepared:
        """Return what a request without faults names; outside of a transaction, because it may take seconds.

        Raises:
            Invalid, UnsupportedImage, PayloadTooLarge, FileLost: As `ShotLoader.load`.
            Invalid: The files of the model that it names were replaced.
        """
        settings = resolve_settings(request.generation, self._inference.sizes)
        shots = self._shots.load(request, (settings["width"], settings["height"]), caller, base=base)
        return Prepared(shots, self._inference.drawn_by(settings.get("model")))

    def add(
        self, session: Session, request: DatasetCreate, caller: Caller, *, job_id: str, prepared: Prepared
    ) -> Dataset:
        """Add the row of an accepted dataset, which belongs to the caller, with its shots.

        Raises:
            Conflict: The name is taken.
        """
        _refuse_taken_name(session, request.name, caller)
        dataset = self._new(request, prepared, job_id=job_id, key_id=caller.key_id)
        session.add(dataset)
        try:
            session.flush()
        except IntegrityError:  # taken meanwhile, by a transaction that is invisible to this one
            raise _name_taken() from None
        add_shots(session, dataset, prepared.shots.files)
        return dataset

    def page(
        self,
        limit: int,
        cursor: str | None,
        caller: Caller,
        *,
        name: str | None = None,
        status: str | None = None,
        created_after: datetime | None = None,
    ) -> DatasetPage:
        """Return a page of the datasets that a caller sees, newest first; of those that match what is given."""
        query = matching(
            select(Dataset).where(seen(Dataset.key_id, caller)),
            (Dataset.name, name),
            (Dataset.status, status),
            newer=(Dataset.created_at, created_after),
        )
        with self._db.snapshot() as session:
            rows, next_cursor = fetch_page(session, query, Dataset.id, limit, cursor, weigh=_weight)
            total = count_matches(session, query)
            return DatasetPage(items=read_datasets(session, rows), next_cursor=next_cursor, total=total)

    def read(self, dataset_id: str) -> DatasetRead:
        """Return one dataset.

        Raises:
            NotFound: There is none with this id.
        """
        with self._db.snapshot() as session:
            return read_datasets(session, [find_dataset(session, dataset_id)])[0]

    def require(self, dataset_id: str) -> None:
        """Raise if there is no such dataset.

        Raises:
            NotFound: There is none with this id.
        """
        with self._db.snapshot() as session:
            find_dataset(session, dataset_id)

    def recipe(self, dataset_id: str) -> DatasetRecipeRead:
        """Return the recipe of a dataset as a body of `POST /datasets`.

        Raises:
            NotFound: There is none with this id.
        """
        with self._db.snapshot() as session:
            return recipe_read(find_dataset(session, dataset_id, with_texts=True))

    def repair(self, dataset_id: str, submission: Submission = ANEW) -> RepairJob:
        """Accept the repair of a dataset, and enqueue its job.

        Raises:
            NotFound: There is no dataset with this id.
            Conflict: A job uses the dataset, or the node has not the model that generated its images.
        """
        drawn_by = drawn_by_now(self._db, self._inference, dataset_id)

        def work(session: Session) -> RepairJob:
            dataset = find_dataset(session, dataset_id, lock=True)
            refuse_in_use(session, dataset)
            generated = select(Image.id).where(Image.dataset_id == dataset_id, Image.source == "synthetic").limit(1)
            if session.scalar(generated):
                refuse_other_model(dataset, drawn_by)
            num = session.scalar(select(func.count()).where(Image.dataset_id == dataset_id)) or 0
            job = self._jobs.submit(
                session,
                kind="repair",
                spec=RepairSpec(dataset_id).to_json(),
                total=num,
                unit="images",
                priority=submission.priority,
                caller=submission.caller,
            )
            return job_read_as(RepairJob, job)

        return accept(self._db, submission, work, location=lambda job: f"/jobs/{job.id}")

    def delete(self, dataset_id: str) -> None:
        """Delete a dataset, its records and its folder.

        Raises:
            NotFound: There is none with this id.
            Conflict: A job uses the dataset.
        """
        self._folder.reserve.spend(lambda: self._delete(dataset_id))

    def _new(
        self, request: DatasetCreate, prepared: Prepared, *, job_id: str | None = None, key_id: str | None = None
    ) -> Dataset:
        """Return the row of a validated request; it is in no session yet."""
        inference = self._inference
        return new_dataset(
            request,
            inference.sizes,
            inference.pack,
            job_id=job_id,
            key_id=key_id,
            drawn_by=prepared.drawn_by,
            shots=prepared.shots.hashes,
        )

    def _delete(self, dataset_id: str) -> None:
        try:
            with self._db.transaction() as session:
                dataset = find_dataset(session, dataset_id, lock=True)
                refuse_in_use(session, dataset)
                clear_dataset_folders(session, self._folder, dataset)  # unrecorded files are not deleted with it
                session.delete(dataset)
                session.flush()
                # Before the commit frees the name, so that the next dataset of this name starts with empty folders.
                self._folder.trash_dataset(dataset.name, dataset_id)
        finally:
            finish_deletion(self._db, self._folder, dataset_id)


def drawn_by_now(db: Database, inference: Inference, dataset_id: str) -> DrawnBy | None:
    """Return what would draw more images of a dataset on this node; outside of a transaction, see `drawn_by`.

    Returns:
        None: The node has not the model of the dataset, or cannot use it; or there is no such dataset.

    Raises:
        ModelNotReady: The models are not listed yet.
    """
    with db.snapshot() as session:
        dataset = session.get(Dataset, dataset_id)
    if dataset is None:
        return None
    try:
        return inference.drawn_by(dataset.generation.get("model"))
    except Invalid:
        return None


def small_request(request: DatasetCreate) -> dict[str, Any]:
    """Return the part of a dataset's request that a job's spec keeps: all but the texts, which have their own row."""
    return request.model_dump(mode="json", exclude={"classes", "variables"})


def _refuse_taken_name(session: Session, name: str, caller: Caller) -> None:
    taken_by = session.scalar(select(Dataset).where(Dataset.name == name))
    if taken_by is not None:
        is_seen = caller.sees(taken_by.key_id)
        raise _name_taken({"dataset_id": taken_by.id, "existing_id": taken_by.id} if is_seen else None)


def _weight(dataset: Dataset) -> int:
    return json_bytes([dataset.classes, dataset.missing]) + _COUNTS_BYTES * len(dataset.classes)


def _name_taken(members: Mapping[str, str] | None = None) -> Conflict:
    return Conflict(
        "A dataset of this name exists. Choose another name.", code=ErrorCode.DATASET_NAME_TAKEN, members=members
    )

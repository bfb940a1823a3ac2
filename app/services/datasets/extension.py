"""The extension of an existing dataset: a job that generates the next slots of its recipe.

An image depends on its slot alone, so a dataset of 10 images that is extended by 10 has the files of a dataset that was
created with 20. Imports no HTTP framework. Methods run on a worker thread of the API process, not on its event loop.
"""

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.access.caller import Caller
from app.db.models import Dataset, Image, Job
from app.db.session import Database
from app.error_codes import ErrorCode
from app.errors import FieldError
from app.image_spec import DrawnBy
from app.jobs.queue import JobQueue
from app.schemas.common import SPLITS
from app.schemas.datasets import DatasetExtend, DatasetPlan, DatasetRead
from app.services.datasets.dry_run import plan_dataset
from app.services.datasets.estimates.job_estimator import JobEstimator
from app.services.datasets.payloads import DatasetWork
from app.services.datasets.recipes.recipe import Offsets, per_class
from app.services.datasets.records import kept_images, num_to_make, pixel_steps, read_datasets
from app.services.datasets.rows import find_dataset, refuse_in_use, refuse_other_model
from app.services.datasets.service import drawn_by_now
from app.services.datasets.slots import in_slot, num_filled, prior_attempts
from app.services.inference.service import Inference
from app.services.jobs.idempotency import ANEW, Submission, accept
from app.services.limits import Limits, raise_if_invalid


class DatasetExtensionService:
    """Accepts and plans extensions of datasets."""

    def __init__(
        self, db: Database, inference: Inference, jobs: JobQueue, limits: Limits, estimator: JobEstimator
    ) -> None:
        """Wire the service."""
        self._estimator = estimator
        self._db = db
        self._inference = inference
        self._jobs = jobs
        self._limits = limits

    def extend(self, dataset_id: str, request: DatasetExtend, submission: Submission = ANEW) -> DatasetRead:
        """Accept more images for a dataset, and enqueue the job that generates them.

        Raises:
            NotFound: There is no dataset with this id.
            Conflict: A job uses the dataset, or the node has not the model that generated its images.
            Invalid: The dataset would have too many images.
        """
        drawn_by = drawn_by_now(self._db, self._inference, dataset_id)

        def work(session: Session) -> DatasetRead:
            dataset = find_dataset(session, dataset_id, lock=True)
            offsets, tried = self._refuse(session, dataset, request, drawn_by), prior_attempts(session, dataset)
            _make_room(session, dataset, request)
            _grow(dataset, request)
            work = DatasetWork(dataset.id, offsets, tried)
            job = self._jobs.submit(
                session,
                kind="dataset",
                spec={"dataset_id": dataset.id, "extend": request.model_dump(mode="json"), **work.to_json()},
                total=num_to_make(dataset, offsets),
                unit="images",
                priority=submission.priority,
                caller=submission.caller,
                pixel_steps=pixel_steps(dataset, offsets),
            )
            dataset.status, dataset.job_id = "queued", job.id
            return read_datasets(session, [dataset])[0]

        return accept(self._db, submission, work, location=lambda dataset: f"/datasets/{dataset.id}")

    def plan(self, dataset_id: str, request: DatasetExtend, caller: Caller) -> DatasetPlan:
        """Return what `extend` would generate; nothing is stored.

        Raises:
            NotFound, Conflict, Invalid: As `extend` would.
        """
        drawn_by = drawn_by_now(self._db, self._inference, dataset_id)
        with self._db.snapshot() as session:
            dataset = find_dataset(session, dataset_id, with_texts=True)
            offsets = self._refuse(session, dataset, request, drawn_by)
            filled = num_to_make(dataset) - num_to_make(dataset, offsets)
            if dataset.status == "incomplete":  # the samples show the new slots, not the empty old ones
                offsets, filled = Offsets.behind(dataset), num_filled(session, dataset)
            session.expunge(dataset)
            _grow(dataset, request)
            return plan_dataset(session, dataset, self._estimator, caller, offsets, num_filled=filled)

    def _refuse(self, session: Session, dataset: Dataset, request: DatasetExtend, drawn_by: DrawnBy | None) -> Offsets:
        """Return the offsets of the new job; raise if the dataset cannot be extended by this request."""
        refuse_in_use(session, dataset)
        refuse_other_model(dataset, drawn_by)
        added = len(dataset.classes) * sum(_added(request).values())
        uploaded = kept_images(dataset.id).where(~in_slot(dataset)).subquery()
        total = num_to_make(dataset) + added + (session.scalar(select(func.count()).select_from(uploaded)) or 0)
        if total > self._limits.dataset_images:
            detail = f"The dataset would have {total} images. At most {self._limits.dataset_images} are accepted."
            raise_if_invalid([FieldError("#", detail, ErrorCode.TOO_MANY_IMAGES)])
        return _made(session, dataset)


def _made(session: Session, dataset: Dataset) -> Offsets:
    """Return the slots that finished jobs have filled; the extension also generates what is missing behind them."""
    if dataset.status == "incomplete":
        return Offsets()  # any slot may be empty
    if dataset.status in ("failed", "cancelled"):
        job = session.get(Job, dataset.job_id)
        return DatasetWork.from_json(job.spec).made if job is not None else Offsets()
    return Offsets.behind(dataset)


def _added(request: DatasetExtend) -> dict[str, int]:
    """Return the number of images to add to each class, by split."""
    numbers = (request.train_per_class, request.validation_per_class, request.test_per_class)
    return dict(zip(SPLITS, numbers, strict=True))


def _grow(dataset: Dataset, request: DatasetExtend) -> None:
    dataset.train_per_class += request.train_per_class
    dataset.validation_per_class += request.validation_per_class
    dataset.test_per_class += request.test_per_class


def _make_room(session: Session, dataset: Dataset, request: DatasetExtend) -> None:
    """Move uploaded images behind the new slots; their files keep their names.

    Uploaded images that fill a slot stay in it.
    """
    for split, by in _added(request).items():
        behind = Image.position >= per_class(dataset, split)
        here = (Image.dataset_id == dataset.id, Image.source == "real", Image.split == split, behind)
        last = session.scalar(select(func.max(Image.position)).where(*here))
        if by and last is not None:
            # In two steps, first behind all images: positions are unique, also between two rows of one statement.
            for step in (last + 1 + by, -last - 1):
                session.execute(update(Image).where(*here).values(position=Image.position + step))

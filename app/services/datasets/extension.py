"""More generated images for a dataset that exists: the next places of its recipe, as a job of their own.

An image follows from its place, so a dataset of 10 images that is extended by 10 has the files of one that was made
with 20. Called from threads.
"""

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.db.models import Dataset, Image, Job
from app.db.session import Database
from app.error_codes import ErrorCode
from app.errors import Conflict, FieldError
from app.jobs.queue import JobQueue
from app.schemas.datasets import DatasetExtend, DatasetPlan, DatasetRead
from app.services.datasets.payloads import DatasetWork
from app.services.datasets.places import in_place, num_filled, per_class, tried_in_vain
from app.services.datasets.plan import plan_dataset
from app.services.datasets.recipe import Made
from app.services.datasets.records import kept_images, num_to_make, read_datasets
from app.services.datasets.rows import find_dataset, refuse_in_use
from app.services.inference.service import Inference
from app.services.jobs.idempotency import ANEW, Submission, accept
from app.services.limits import Limits, refuse


class DatasetExtensionService:
    """Lets datasets grow by further generation."""

    def __init__(self, db: Database, inference: Inference, jobs: JobQueue, limits: Limits) -> None:
        """Wire the service."""
        self._db = db
        self._inference = inference
        self._jobs = jobs
        self._limits = limits

    def extend(self, dataset_id: str, request: DatasetExtend, submission: Submission = ANEW) -> DatasetRead:
        """Accept more images for a dataset, and enqueue the job that makes them.

        Raises:
            NotFound: There is no such dataset.
            Conflict: A job makes or reads it, or another pack is loaded than the one that drew it.
            Invalid: It would have too many images.
        """

        def work(session: Session) -> DatasetRead:
            dataset = find_dataset(session, dataset_id, lock=True)
            made, tried = self._refuse(session, dataset, request), tried_in_vain(session, dataset)
            _make_room(session, dataset, request)
            _grow(dataset, request)
            work = DatasetWork(dataset.id, made, tried)
            job = self._jobs.submit(
                session,
                kind="dataset",
                spec={"dataset_id": dataset.id, "extend": request.model_dump(mode="json"), **work.to_json()},
                total=num_to_make(dataset, made),
                unit="images",
                priority=submission.priority,
            )
            dataset.status, dataset.job_id = "queued", job.id
            return read_datasets(session, [dataset])[0]

        return accept(self._db, submission, work, location=lambda dataset: f"/datasets/{dataset.id}")

    def plan(self, dataset_id: str, request: DatasetExtend) -> DatasetPlan:
        """Tell what `extend` would make; nothing is stored.

        Raises:
            NotFound, Conflict, Invalid: As `extend` would.
        """
        with self._db.snapshot() as session:
            dataset = find_dataset(session, dataset_id, with_texts=True)
            made = self._refuse(session, dataset, request)
            filled = num_to_make(dataset) - num_to_make(dataset, made)
            if dataset.status == "incomplete":  # its new places are shown, not those that were tried before
                made, filled = Made(dataset.train_per_class, dataset.test_per_class), num_filled(session, dataset)
            session.expunge(dataset)
            _grow(dataset, request)
            return plan_dataset(session, dataset, made, num_filled=filled)

    def _refuse(self, session: Session, dataset: Dataset, request: DatasetExtend) -> Made:
        """Return what is made already, unless the dataset cannot be extended so."""
        refuse_in_use(session, dataset)
        pack = self._inference.pack
        if (dataset.pack, dataset.pack_revision) != (pack.name, pack.revision):
            raise Conflict(
                "Another model pack is loaded than the one that drew this dataset. Load that pack.",
                code=ErrorCode.PACK_CHANGED,
            )
        added = len(dataset.classes) * (request.train_per_class + request.test_per_class)
        uploaded = kept_images(dataset.id).where(~in_place(dataset)).subquery()
        total = num_to_make(dataset) + added + (session.scalar(select(func.count()).select_from(uploaded)) or 0)
        if total > self._limits.dataset_images:
            detail = f"The dataset would have {total} images. At most {self._limits.dataset_images} are accepted."
            refuse([FieldError("#", detail, ErrorCode.TOO_MANY_IMAGES)])
        return _made(session, dataset)


def _made(session: Session, dataset: Dataset) -> Made:
    """Return what the dataset's finished jobs have made; what is missing by then is made with the extension."""
    if dataset.status == "incomplete":
        return Made()  # any place may be empty
    if dataset.status in ("failed", "cancelled"):
        job = session.get(Job, dataset.job_id)
        return DatasetWork.from_json(job.spec).made if job is not None else Made()
    return Made(dataset.train_per_class, dataset.test_per_class)


def _grow(dataset: Dataset, request: DatasetExtend) -> None:
    dataset.train_per_class += request.train_per_class
    dataset.test_per_class += request.test_per_class


def _make_room(session: Session, dataset: Dataset, request: DatasetExtend) -> None:
    """Move uploaded images behind the places that generated ones will get; their files keep their names.

    Those that fill a place stay in it.
    """
    for split, by in (("train", request.train_per_class), ("test", request.test_per_class)):
        behind = Image.position >= per_class(dataset, split)
        here = (Image.dataset_id == dataset.id, Image.source == "real", Image.split == split, behind)
        last = session.scalar(select(func.max(Image.position)).where(*here))
        if by and last is not None:
            # By way of places behind them all: no place may have two images, not even between two rows of a statement.
            for step in (last + 1 + by, -last - 1):
                session.execute(update(Image).where(*here).values(position=Image.position + step))

"""The service for train jobs: create, list, read, cancel. The job in `job.py` trains.

Imports no HTTP framework and no training code. Methods run on a worker thread of the API process.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from app.access.caller import Caller
from app.access.visibility import seen
from app.db.base import new_id
from app.db.models import Dataset, Evaluation, Image, Job, TrainedModel, TrainEpoch, active_jobs
from app.db.session import Database
from app.error_codes import ErrorCode
from app.errors import Invalid, ModelNotReady, NotFound
from app.jobs.queue import JobQueue
from app.modelpacks.photo import PHOTO
from app.names import is_like_an_id
from app.node.protocol import FINE_TUNED, PACK_BACKBONE
from app.schemas.train_jobs import EpochRead, TrainJobCreate, TrainJobPage, TrainJobRead, TrainJobSummary
from app.services.datasets.records import num_to_make, pixel_steps
from app.services.datasets.service import DatasetService, Prepared, small_request
from app.services.datasets.slots import (
    class_sizes,
    has_validation,
    refuse_empty_classes,
    refuse_repair,
    refuse_unfinished,
)
from app.services.datasets.versions import images_of, num_images_of
from app.services.inference.backbone_descriptions import BackboneDescription
from app.services.inference.service import Inference
from app.services.jobs.idempotency import ANEW, Submission, accept
from app.services.jobs.kinds import model_name_holder, model_name_taken
from app.services.jobs.service import progress_read
from app.services.limits import raise_if_invalid
from app.services.pagination import count_matches, fetch_page, matching
from app.services.training.head_settings import (
    check_fine_tuning,
    head_json,
    num_epochs,
    resolve_fine_tuning,
    resolve_head,
    resolve_validation,
)
from app.services.training.payloads import FROM_PROMPTS, TrainSpec
from app.storage.layout import DataFolder

# The backbones of the preset `from_prompts`: they make different mistakes.
COMBINED = f"{PACK_BACKBONE}+{PHOTO}+clip"
# What `/classify` takes as `model` besides trained models, and the path `/models/compare`.
RESERVED_NAMES = ("demo", "sd15", PHOTO, "compare")


class TrainJobService:
    """Creates, lists, reads and cancels train jobs."""

    def __init__(
        self, db: Database, inference: Inference, jobs: JobQueue, datasets: DatasetService, folder: DataFolder
    ) -> None:
        """Wire the service; the folder's reserve lets a job be cancelled on a full disk."""
        self._db = db
        self._inference = inference
        self._jobs = jobs
        self._datasets = datasets
        self._folder = folder

    def create(self, request: TrainJobCreate, submission: Submission = ANEW) -> TrainJobRead:
        """Accept a train job; if the request contains a dataset, the job generates it first.

        Raises:
            Invalid: There is no dataset with this id, or it cannot be trained on; there is no such backbone.
            Invalid, UnsupportedImage, PayloadTooLarge, FileLost: A shot of the dataset cannot be used.
            Conflict: The dataset is not ready, or a name is taken.
            ModelNotReady: The backbone's files cannot be used, or it is being loaded.
            StorageFull: The checkpoints of a fine-tuning do not fit.
        """
        prepared = self._check_dataset(request, submission.caller)
        backbone, warnings = self._choose_backbone(request)
        fine_tuning = resolve_fine_tuning(request)
        if fine_tuning is not None:
            check_fine_tuning(backbone, fine_tuning, self._num_classes(request), self._folder)

        def work(session: Session) -> TrainJobRead:
            job_id = new_id()
            dataset, num_steps = self._dataset(session, request, job_id, submission.caller, prepared)
            sizes = class_sizes(session, dataset) if request.dataset is None else []
            head = resolve_head(request, smallest_class=min(sizes, default=None), trained_on=backbone.trained_on)
            has_own, largest = has_validation(session, dataset), max(sizes, default=None)
            settings = {
                **request.model_dump(mode="json", exclude={"dataset"}),
                "backbone": backbone.facts.name,
                "head": head_json(head),
                "validation": resolve_validation(request, head, largest_class=largest, has_own=has_own),
                "name": _resolve_name(session, request.name, dataset, submission.caller),
                "dataset_id": dataset.id,
            }
            spec = TrainSpec(
                **settings,
                dataset=None if request.dataset is None else small_request(request.dataset),
                backbone_sha256=backbone.facts.weights_sha256,
                warnings=warnings + _validation_warnings(request, has_own=has_own),
                fine_tuning=fine_tuning,
            )
            job = self._jobs.submit(
                session,
                kind="train",
                spec=spec.to_json(),
                total=num_steps + (num_epochs(head) if fine_tuning is None else fine_tuning["epochs"]),
                unit="steps",
                job_id=job_id,
                priority=submission.priority,
                caller=submission.caller,
                pixel_steps=0 if request.dataset is None else pixel_steps(dataset),
            )
            return _read(session, job)

        return accept(self._db, submission, work, location=lambda job: f"/train-jobs/{job.id}")

    def page(
        self,
        limit: int,
        cursor: str | None,
        caller: Caller,
        *,
        name: str | None = None,
        status: str | None = None,
        dataset_id: str | None = None,
        created_after: datetime | None = None,
    ) -> TrainJobPage:
        """Return a page of the train jobs that a caller sees, newest first; of those that match what is given."""
        query = matching(
            select(Job).where(Job.kind == "train", seen(Job.key_id, caller)),
            (Job.spec["name"].as_string(), name),
            (Job.status, status),
            (Job.spec["dataset_id"].as_string(), dataset_id),
            newer=(Job.created_at, created_after),
        )
        with self._db.snapshot() as session:
            rows, next_cursor = fetch_page(session, query, Job.id, limit, cursor)
            total = count_matches(session, query)
            return TrainJobPage(items=_summaries(session, rows), next_cursor=next_cursor, total=total)

    def read(self, job_id: str) -> TrainJobRead:
        """Return one train job.

        Raises:
            NotFound: There is none with this id.
        """
        with self._db.snapshot() as session:
            return _read(session, _train_job(session, job_id))

    def cancel(self, job_id: str) -> TrainJobRead:
        """Cancel a train job; a finished one stays as it is.

        Raises:
            NotFound: There is none with this id.
        """
        with self._db.snapshot() as session:
            _train_job(session, job_id)
        self._folder.reserve.spend(lambda: self._jobs.cancel(job_id))
        return self.read(job_id)

    def _check_dataset(self, request: TrainJobCreate, caller: Caller) -> Prepared | None:
        """Refuse a dataset with faults, or one that the caller does not see; return what a new one names."""
        if request.dataset is None:
            self._refuse_unseen(request.dataset_id, caller)
            return None
        raise_if_invalid(self._datasets.faults(request.dataset, base="#/dataset"))
        return self._datasets.prepare(request.dataset, caller, base="#/dataset")

    def _refuse_unseen(self, dataset_id: str | None, caller: Caller) -> None:
        """Refuse a dataset that the caller does not see, before anything of it is looked at."""
        if caller.reads_own:
            with self._db.snapshot() as session:
                found = session.get(Dataset, dataset_id)
            if found is None or not caller.sees(found.key_id):
                raise _no_dataset()

    def _choose_backbone(self, request: TrainJobCreate) -> tuple[BackboneDescription, list[dict[str, str]]]:
        """Return the backbone and the warnings about it; outside of the transaction, because it may hash a file.

        Photographs, which only uploads can be, are trained on `photo` unless the request names a backbone.
        """
        backbones = self._inference.backbones
        has_photographs = request.dataset_id is not None and self._has_uploads(request.dataset_id)
        default = COMBINED if request.preset == FROM_PROMPTS else PACK_BACKBONE
        names = [request.backbone or default]
        if FINE_TUNED in names[0]:
            detail = "A fine-tuned model's backbone goes with that model. Name a backbone of GET /backbones."
            raise Invalid.field("#/backbone", detail, ErrorCode.BACKBONE_NOT_FOUND)
        if names == [PACK_BACKBONE] and request.backbone is None and has_photographs and PHOTO in backbones.names():
            names.insert(0, PHOTO)
        try:
            chosen = backbones.describe(names[0])
        except ModelNotReady:
            if len(names) == 1:
                raise
            chosen = backbones.describe(names[1])
        warnings = [_drawings_warning(chosen.facts.name)] if has_photographs and chosen.trained_on == "drawings" else []
        return chosen, warnings

    def _num_classes(self, request: TrainJobCreate) -> int:
        if request.dataset is not None:
            return len(request.dataset.classes)
        with self._db.snapshot() as session:
            dataset = session.get(Dataset, request.dataset_id)
            return 0 if dataset is None else len(dataset.classes)  # `_dataset` refuses the request

    def _has_uploads(self, dataset_id: str) -> bool:
        with self._db.snapshot() as session:
            uploads = images_of(dataset_id).with_only_columns(Image.id).order_by(None)
            uploads = uploads.where(Image.source == "real", Image.split == "train").limit(1)
            return session.scalar(uploads) is not None

    def _dataset(
        self, session: Session, request: TrainJobCreate, job_id: str, caller: Caller, prepared: Prepared | None
    ) -> tuple[Dataset, int]:
        """Return the dataset and the job's number of images to generate and to read."""
        if request.dataset is not None and prepared is not None:
            dataset = self._datasets.add(session, request.dataset, caller, job_id=job_id, prepared=prepared)
            if dataset.train_per_class < 1:
                detail = "The dataset has no training images."
                raise Invalid.field("#/dataset/train_per_class", detail, ErrorCode.DATASET_EMPTY)
            return dataset, 2 * num_to_make(dataset)
        found = session.get(Dataset, request.dataset_id, with_for_update=True)  # excludes uploads meanwhile
        if found is None:
            raise _no_dataset()
        refuse_repair(session, found.id)
        refuse_unfinished(session, found, allow_incomplete=request.allow_incomplete)
        refuse_empty_classes(session, found, "#/dataset_id")
        return found, num_images_of(session, found.id)


def _no_dataset() -> Invalid:
    return Invalid.field("#/dataset_id", "There is no dataset with this id.", ErrorCode.DATASET_NOT_FOUND)


def _validation_warnings(request: TrainJobCreate, *, has_own: bool) -> list[dict[str, str]]:
    if request.validation is None or not has_own:
        return []
    detail = (
        "The dataset has a split `validation`, which is used as it is. `validation.fraction` is ignored: every "
        "training image is trained on."
    )
    return [{"code": "validation_fraction_ignored", "detail": detail}]


def _drawings_warning(name: str) -> dict[str, str]:
    detail = (
        f"The backbone {name} was trained on drawings only, and the dataset has uploaded images. A backbone that was "
        "trained on photographs will serve these better; GET /backbones lists those of this node."
    )
    return {"code": "backbone_trained_on_drawings", "detail": detail}


def _resolve_name(session: Session, asked: str | None, dataset: Dataset, caller: Caller) -> str:
    if asked is not None:
        if is_like_an_id(asked):
            detail = "The name has the form of an id. Choose another name."
            raise Invalid.field("#/name", detail, ErrorCode.BAD_MODEL_NAME)
        holder = model_name_holder(session, asked)
        if asked in RESERVED_NAMES or holder is not None:
            raise model_name_taken(holder if holder is not None and caller.sees(holder.key_id) else None)
        return asked
    number = 1 + _num_trained(session, dataset.id)
    while model_name_holder(session, name := f"{dataset.name[:56]}-{number}") is not None:
        number *= 2  # a deleted dataset of this name may have left thousands of models
    return name


def _num_trained(session: Session, dataset_id: str) -> int:
    """Return how many models were, or are being, trained on a dataset."""
    models = select(func.count()).where(TrainedModel.dataset_id == dataset_id)
    jobs = select(func.count()).where(
        active_jobs(), Job.kind == "train", Job.spec["dataset_id"].as_string() == dataset_id
    )
    return (session.scalar(models) or 0) + (session.scalar(jobs) or 0)


def _train_job(session: Session, job_id: str) -> Job:
    job = session.get(Job, job_id)
    if job is None or job.kind != "train":
        raise NotFound("There is no train job with this id.")
    return job


def _summaries(session: Session, jobs: Sequence[Job]) -> list[TrainJobSummary]:
    ids = [job.id for job in jobs]
    newest = select(TrainEpoch.job_id, func.max(TrainEpoch.epoch)).where(TrainEpoch.job_id.in_(ids))
    query = select(TrainEpoch).where(
        tuple_(TrainEpoch.job_id, TrainEpoch.epoch).in_(newest.group_by(TrainEpoch.job_id))
    )
    last = {row.job_id: EpochRead.model_validate(row) for row in session.scalars(query)}
    return [TrainJobSummary(**_fields(job), last_epoch=last.get(job.id)) for job in jobs]


def _read(session: Session, job: Job) -> TrainJobRead:
    query = select(TrainEpoch).where(TrainEpoch.job_id == job.id).order_by(TrainEpoch.epoch)
    epochs = [EpochRead.model_validate(row) for row in session.scalars(query)]
    last = epochs[-1] if epochs else None
    spec = {name: value for name, value in job.spec.items() if name != "warnings"}
    # Of the test's details, which may have megabytes, the database returns this member alone.
    of_test = session.scalar(select(Evaluation.details["warnings"].as_json()).where(Evaluation.job_id == job.id))
    warnings = [*job.spec.get("warnings", []), *(of_test or [])]
    return TrainJobRead(**_fields(job), spec=spec, warnings=warnings, epochs=epochs, last_epoch=last)


def _fields(job: Job) -> dict[str, Any]:
    columns = ("id", "status", "error", "attempts", "created_at", "started_at", "finished_at")
    return {
        **{name: getattr(job, name) for name in columns},
        "progress": progress_read(job),
        "name": job.spec["name"],
        "dataset_id": job.spec["dataset_id"],
        "model_id": (job.result or {}).get("model_id"),
    }

"""The kinds of background work as both processes know them: a name, a queue, and how its end is followed.

The work itself is in the modules named after the kinds, `generate_job.py` and so on, in the worker process alone.
"""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.models import Dataset, Job, TrainedModel, active_jobs
from app.error_codes import ErrorCode
from app.errors import Conflict
from app.services.datasets.slots import is_held, refuse_repair, refuse_unfinished


class GenerateKind:
    """Images of one `/generate` request; the queue is its own, so that it never waits behind datasets."""

    kind = "generate"
    queue = "generate"

    def on_end(self, session: Session, job: Job) -> None:
        """Do nothing: a generation exists or it does not."""

    def before_retry(self, session: Session, failed: Job, retry_id: str) -> None:
        """Do nothing: a generation is made anew, from the same seed."""


class DatasetKind:
    """The images of a dataset."""

    kind = "dataset"
    queue = "jobs"

    def on_end(self, session: Session, job: Job) -> None:
        """Let the dataset end as its job did."""
        _end_dataset(session, job)

    def before_retry(self, session: Session, failed: Job, retry_id: str) -> None:
        """Give the dataset, with the images that it has, to the new job."""
        _hand_dataset_over(session, failed, retry_id)


class TrainKind:
    """Training on a dataset, which the job may have to make first."""

    kind = "train"
    queue = "jobs"

    def on_end(self, session: Session, job: Job) -> None:
        """Let a dataset that this job was to make end as the job did."""
        if job.spec["dataset"] is not None:
            _end_dataset(session, job)

    def before_retry(self, session: Session, failed: Job, retry_id: str) -> None:
        """Refuse if the model's name is taken by now; let the new job make or read the dataset."""
        if is_model_name_taken(session, failed.spec["name"]):
            raise Conflict(
                "A model of this name exists or is being trained. Choose another name.", code=ErrorCode.MODEL_NAME_TAKEN
            )
        dataset = session.get(Dataset, failed.spec["dataset_id"])
        if failed.spec["dataset"] is not None and (dataset is None or dataset.status != "ready"):
            _hand_dataset_over(session, failed, retry_id)
        elif dataset is None:
            raise Conflict("The dataset was deleted.", code=ErrorCode.DATASET_NOT_READY)
        else:
            refuse_repair(session, dataset.id)
            refuse_unfinished(session, dataset, allow_incomplete=failed.spec.get("allow_incomplete", False))


def is_model_name_taken(session: Session, name: str) -> bool:
    """Tell whether a model has this name, or a train job that has not ended will give it."""
    named = select(TrainedModel.id).where(TrainedModel.name == name)
    training = select(Job.id).where(active_jobs(), Job.kind == TrainKind.kind, Job.spec["name"].as_string() == name)
    return session.scalar(named) is not None or session.scalar(training.limit(1)) is not None


class RepairKind:
    """A look at all files of a dataset, which draws lost ones again."""

    kind = "repair"
    queue = "jobs"

    def on_end(self, session: Session, job: Job) -> None:
        """Do nothing: the dataset is what it was, with more sound files."""

    def before_retry(self, session: Session, failed: Job, retry_id: str) -> None:
        """Refuse while another job works on the dataset."""
        dataset = _locked(session, failed)
        if dataset.status in ("queued", "generating") or is_held(session, dataset.id, by=("train", "repair")):
            raise Conflict(
                "Another job works on this dataset. Wait for it, or cancel it first.", code=ErrorCode.DATASET_IN_USE
            )


JOB_KINDS = (GenerateKind(), DatasetKind(), RepairKind(), TrainKind())


def _hand_dataset_over(session: Session, failed: Job, retry_id: str) -> None:
    dataset = _locked(session, failed)
    refuse_repair(session, dataset.id)
    if dataset.status in ("queued", "generating"):
        raise Conflict(
            "Another job works on this dataset. Wait for it, or cancel it first.", code=ErrorCode.DATASET_IN_USE
        )
    dataset.status, dataset.job_id = "queued", retry_id


def _locked(session: Session, job: Job) -> Dataset:
    dataset = session.get(Dataset, job.spec["dataset_id"], with_for_update=True, populate_existing=True)
    if dataset is None:
        raise Conflict("The dataset was deleted.", code=ErrorCode.DATASET_GONE)
    return dataset


def _end_dataset(session: Session, job: Job) -> None:
    """Give a dataset whose images are not all made yet the status of its failed or cancelled job."""
    dataset = session.get(Dataset, job.spec["dataset_id"])
    if dataset is not None and dataset.status in ("queued", "generating") and job.status in ("failed", "cancelled"):
        dataset.status = job.status

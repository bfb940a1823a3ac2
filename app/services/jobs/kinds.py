"""The kinds of jobs: for each one its name, its queue, and what changes when such a job ends or is retried.

Runs in every process, inside transactions. The work itself is in `<subject>/job.py`, in the worker process alone.
"""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.models import Dataset, Job, TrainedModel, active_jobs
from app.error_codes import ErrorCode
from app.errors import Conflict
from app.services.datasets.rows import refuse_generating, refuse_in_use
from app.services.datasets.slots import makes_dataset, refuse_repair, refuse_unfinished


class GenerateKind:
    """The images of one `/generate` request, on a queue of its own so that it does not wait behind datasets."""

    kind = "generate"
    queue = "generate"

    def on_end(self, session: Session, job: Job) -> None:
        """Do nothing: an unfinished generation has no rows."""

    def before_retry(self, session: Session, failed: Job, retry_id: str) -> None:
        """Do nothing: the generation is made again, from the same seed."""


class DatasetKind:
    """The images of a dataset."""

    kind = "dataset"
    queue = "jobs"

    def on_end(self, session: Session, job: Job) -> None:
        """Give the dataset the status of its job."""
        _end_dataset(session, job)

    def before_retry(self, session: Session, failed: Job, retry_id: str) -> None:
        """Assign the dataset, with the images that it has, to the new job."""
        _assign_dataset(session, failed, retry_id)


class TrainKind:
    """Training on a dataset, which the job may have to make first."""

    kind = "train"
    queue = "jobs"

    def on_end(self, session: Session, job: Job) -> None:
        """Give a dataset that this job had to make the status of the job."""
        if makes_dataset(job):
            _end_dataset(session, job)

    def before_retry(self, session: Session, failed: Job, retry_id: str) -> None:
        """Refuse if the model's name is taken meanwhile; assign a dataset that is not made yet to the new job."""
        holder = model_name_holder(session, failed.spec["name"])
        if holder is not None:
            raise model_name_taken(holder if holder.key_id == failed.key_id else None)
        dataset = session.get(Dataset, failed.spec["dataset_id"])
        if makes_dataset(failed) and (dataset is None or dataset.status != "ready"):
            _assign_dataset(session, failed, retry_id)
        elif dataset is None:
            raise dataset_gone()
        else:
            refuse_repair(session, dataset.id)
            refuse_unfinished(session, dataset, allow_incomplete=failed.spec.get("allow_incomplete", False))


def model_name_holder(session: Session, name: str) -> TrainedModel | Job | None:
    """Return the model of this name, or else the train job that has not ended and will give it to its model."""
    training = select(Job).where(active_jobs(), Job.kind == TrainKind.kind, Job.spec["name"].as_string() == name)
    model = session.scalar(select(TrainedModel).where(TrainedModel.name == name))
    return model or session.scalar(training.limit(1))


def model_name_taken(holder: TrainedModel | Job | None) -> Conflict:
    """Return the error for a model's name that is not free.

    Args:
        holder: The model or train job that has it; None: one that the caller must not know.
    """
    return Conflict(
        "A model of this name exists or is being trained. Choose another name.",
        code=ErrorCode.MODEL_NAME_TAKEN,
        members=None if holder is None else {"existing_id": holder.id},
    )


class RepairKind:
    """The check of all files of a dataset, which draws lost images again."""

    kind = "repair"
    queue = "jobs"

    def on_end(self, session: Session, job: Job) -> None:
        """Do nothing: the dataset keeps its status."""

    def before_retry(self, session: Session, failed: Job, retry_id: str) -> None:
        """Refuse while another job works on the dataset."""
        dataset = _locked(session, failed)
        refuse_in_use(session, dataset)


class EvaluateKind:
    """The evaluation of a model on a split of a dataset."""

    kind = "evaluate"
    queue = "jobs"

    def on_end(self, session: Session, job: Job) -> None:
        """Do nothing: an unfinished evaluation has no row."""

    def before_retry(self, session: Session, failed: Job, retry_id: str) -> None:
        """Refuse if the model or the dataset was deleted."""
        if session.get(TrainedModel, failed.spec["model_id"]) is None:
            raise model_gone()
        _locked(session, failed)


def model_gone() -> Conflict:
    """Return the error for a job whose model was deleted meanwhile."""
    return Conflict("The model was deleted. Name another one in a new job.", code=ErrorCode.MODEL_GONE)


def dataset_gone() -> Conflict:
    """Return the error for a job whose dataset was deleted meanwhile."""
    return Conflict("The dataset was deleted. Name another one in a new job.", code=ErrorCode.DATASET_GONE)


JOB_KINDS = (GenerateKind(), DatasetKind(), RepairKind(), TrainKind(), EvaluateKind())


def _assign_dataset(session: Session, failed: Job, retry_id: str) -> None:
    dataset = _locked(session, failed)
    refuse_repair(session, dataset.id)
    refuse_generating(dataset)
    dataset.status, dataset.job_id = "queued", retry_id


def _locked(session: Session, job: Job) -> Dataset:
    dataset = session.get(Dataset, job.spec["dataset_id"], with_for_update=True, populate_existing=True)
    if dataset is None:
        raise dataset_gone()
    return dataset


def _end_dataset(session: Session, job: Job) -> None:
    """Give a dataset that is not finished the status of its failed or cancelled job."""
    dataset = session.get(Dataset, job.spec["dataset_id"])
    if dataset is not None and dataset.status in ("queued", "generating") and job.status in ("failed", "cancelled"):
        dataset.status = job.status
